INSERT INTO bmdb_schema (version, name) VALUES ($1, $2)
