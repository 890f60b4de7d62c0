-- Machines whose agent was heard from within the last 10 minutes.
SELECT count(*) AS machines
FROM machine_agent_heartbeat
WHERE agent_heartbeat_at > statement_timestamp() - interval '10 minutes';
