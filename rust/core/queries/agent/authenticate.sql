-- The agent that may connect for this machine with this key, if there is one.
SELECT machine_id, agent_started_at, agent_public_key
FROM machine_agent_started
WHERE machine_id = $1 AND agent_public_key = $2;
