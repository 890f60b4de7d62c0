-- The agent was heard from.
INSERT INTO machine_agent_heartbeat (machine_id, agent_heartbeat_at)
VALUES ($1, $2)
ON CONFLICT (machine_id) DO UPDATE
SET agent_heartbeat_at = excluded.agent_heartbeat_at;
