DROP FUNCTION work_again();
DROP FUNCTION work_watch(text[], text[], text, text, boolean);
-- With its triggers on tags.
DROP FUNCTION work_attend() CASCADE;
DROP TABLE work_hold;
DROP TABLE process_watch;
DROP TABLE work_attention;

ALTER TABLE sessions RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold, autovacuum_vacuum_cost_delay);
ALTER TABLE work RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_analyze_scale_factor, autovacuum_analyze_threshold, autovacuum_vacuum_cost_delay);
ALTER TABLE work_token RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay);
ALTER TABLE work_backoff RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay);
ALTER TABLE work_loss RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay);
ALTER TABLE machines RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
    autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold);
ALTER TABLE work_history RESET (autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold,
    autovacuum_freeze_min_age);

DROP TRIGGER work_exclusion_moved ON work;
DROP TRIGGER work_exclusion ON work;
-- Refuses a lease beside an excluding one to whoever does not look: older libraries, SQL by hand. The rows of work_token
-- are where two that begin at the same moment meet; what this transaction has touched already is not touched again.
CREATE OR REPLACE FUNCTION work_exclude() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rivals text[];
    holder text;
BEGIN
    rivals := ARRAY(
        SELECT DISTINCT CASE p.process WHEN NEW.process THEN p.excluded ELSE p.process END
        FROM process_exclusion AS p WHERE p.process = NEW.process OR p.excluded = NEW.process
    );
    IF rivals = '{}' THEN
        RETURN NEW;
    END IF;
    INSERT INTO work_token AS t (machine_id, process, token)
    SELECT NEW.machine_id, r.name, 0 FROM unnest(rivals || NEW.process) AS r (name) ORDER BY r.name COLLATE "C"
    ON CONFLICT (machine_id, process) DO UPDATE SET token = t.token WHERE t.xmin <> pg_current_xact_id()::xid;
    SELECT w.process INTO holder FROM work AS w WHERE w.machine_id = NEW.machine_id AND w.process = ANY (rivals) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'machine % is being worked on under process "%", which excludes "%"',
            NEW.machine_id, holder, NEW.process
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'work_exclusion', TABLE = 'work';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER work_exclusion BEFORE INSERT OR UPDATE OF machine_id, process ON work
FOR EACH ROW EXECUTE FUNCTION work_exclude();

CREATE INDEX work_session_idx ON work (session_id);
DROP INDEX work_session_claim_idx;
ALTER TABLE work DROP COLUMN claim_id;
