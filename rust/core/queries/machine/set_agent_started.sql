-- An agent was started, and will authenticate with this key.
INSERT INTO machine_agent_started (machine_id, agent_started_at, agent_public_key)
VALUES ($1, $2, $3)
ON CONFLICT (machine_id) DO UPDATE
SET agent_started_at = excluded.agent_started_at, agent_public_key = excluded.agent_public_key;
