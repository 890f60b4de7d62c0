-- Two may migrate at once, and both have done the same.
INSERT INTO bmdb_schema (version, name) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING
