-- Machines of one provider whose agent fell silent: last heard from over 10 minutes ago, or started over 30 minutes
-- ago and never heard from. The other conditions are those of agent start, with recovery's own backoff.
SELECT provided.machine_id, provided.provider, provided.provider_id, provided.provider_reservation_id,
       provided.provider_ip_address, provided.provider_location, provided.provider_status
FROM machine_provided AS provided
JOIN machine_agent_started AS agent ON agent.machine_id = provided.machine_id
LEFT JOIN machine_agent_heartbeat AS heartbeat ON heartbeat.machine_id = provided.machine_id
WHERE provided.provider = $2
  AND (
      heartbeat.agent_heartbeat_at < statement_timestamp() - interval '10 minutes'
      OR (
          heartbeat.machine_id IS NULL
          AND agent.agent_started_at < statement_timestamp() - interval '30 minutes'
      )
  )
  AND NOT EXISTS (
      SELECT 1
      FROM machine_os_installation_request AS wish
      JOIN machine_os_installation_report AS report
          ON report.machine_id = wish.machine_id AND report.generation = wish.generation
      WHERE wish.machine_id = provided.machine_id AND report.os_installation_result = 'Success'
  )
  AND NOT EXISTS (
      SELECT 1
      FROM work
      WHERE work.machine_id = provided.machine_id
          AND work.process IN ('ShepherdAccess', 'ShepherdAgentStart', 'ShepherdRecovery')
  )
  AND NOT EXISTS (
      SELECT 1
      FROM work_backoff AS backoff
      WHERE backoff.machine_id = provided.machine_id
          AND backoff.process = 'ShepherdRecovery'
          AND backoff.until > statement_timestamp()
  )
ORDER BY provided.machine_id
LIMIT $1;
