-- How the connection to the server itself is encrypted: a pooler in between may have an encrypted one to its client only.
SELECT ssl, version, cipher, bits FROM pg_stat_ssl WHERE pid = pg_backend_pid()
