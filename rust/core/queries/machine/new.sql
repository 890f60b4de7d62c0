-- A machine that nothing is known about yet.
INSERT INTO machines DEFAULT VALUES
RETURNING machine_id, machine_created_at;
