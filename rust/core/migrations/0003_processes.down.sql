DROP TRIGGER work_exclusion ON work;
DROP FUNCTION work_exclude();
DROP TABLE work_loss;
DROP TABLE process_exclusion;
DROP TABLE processes;
