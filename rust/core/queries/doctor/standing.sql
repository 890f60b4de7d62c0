-- Which server this is, and what the role may do there beyond tables.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
       current_database()::text AS database, current_schema()::text AS schema, current_user::text AS role,
       inet_server_addr()::text AS address, inet_server_port() AS port, pg_is_in_recovery() AS standby,
       current_setting('server_encoding') AS encoding, r.rolsuper AS superuser,
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS signals,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees,
       coalesce(has_schema_privilege(current_schema(), 'USAGE'), false) AS usable,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates,
       to_regclass('bmdb_schema') IS NOT NULL AS migrated,
       (
           SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = to_regclass('machines')
       ) AS owns
FROM pg_roles AS r WHERE r.rolname = current_user
