-- Machines that some provider has.
SELECT count(*) AS machines FROM machine_provided;
