-- All machines, with or without tags.
SELECT count(*) AS machines FROM machines;
