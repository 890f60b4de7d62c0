-- As if the agent had never been heard from.
DELETE FROM machine_agent_heartbeat WHERE machine_id = $1;
