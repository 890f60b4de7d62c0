-- What a server answers to one of two transactions that cannot both be.
DO $$ BEGIN RAISE SQLSTATE '40001' USING MESSAGE = 'raised by bmdb.testing'; END $$
