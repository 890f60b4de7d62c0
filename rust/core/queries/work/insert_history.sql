-- One event of the audit trail. Its time is that of the statement, not of BEGIN, so the events of one transaction
-- keep their order.
INSERT INTO work_history (machine_id, process, event, failed_cause, session_id, component, token)
VALUES ($1, $2, $3, $4, $5, $6, $7);
