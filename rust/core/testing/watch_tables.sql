SELECT bmdb_testing.watch($1::text[])
