SELECT 1 AS present FROM pg_catalog.pg_class WHERE oid = to_regclass('bmdb_schema')
