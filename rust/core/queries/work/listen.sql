LISTEN bmdb_work
