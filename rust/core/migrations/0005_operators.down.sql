DROP FUNCTION work_history_prune(timestamptz, bigint);
DROP FUNCTION work_history_ahead();
DROP FUNCTION work_history_partitions();
ALTER TABLE work_history RENAME TO work_history_after;
ALTER INDEX work_history_machine_idx RENAME TO work_history_after_machine_idx;
CREATE TABLE work_history (LIKE work_history_after INCLUDING DEFAULTS);
INSERT INTO work_history SELECT * FROM work_history_after;
DROP TABLE work_history_after;
CREATE INDEX work_history_machine_idx ON work_history (machine_id, "timestamp");
ALTER TABLE work_history SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_freeze_min_age = 0);

DROP TABLE process_eligibility;
ALTER TABLE processes DROP COLUMN backoff_initial, DROP COLUMN backoff_maximum, DROP COLUMN backoff_exponent,
    DROP COLUMN backoff_jitter, DROP COLUMN max_hold, DROP COLUMN version, DROP COLUMN process_seen_at;
