-- The provider no longer has the machine.
DELETE FROM machine_provided WHERE machine_id = $1;
