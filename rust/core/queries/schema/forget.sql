DELETE FROM bmdb_schema WHERE version = $1
