-- Machines of one provider that need an agent: none started, no installation fulfilled (a successful report of the
-- request's generation), nobody of the Shepherd's three processes at work, not in backoff.
-- statement_timestamp() because now() stands still from BEGIN on; clock_timestamp() is volatile, which would keep the
-- planner from turning NOT EXISTS into a join.
SELECT provided.machine_id, provided.provider, provided.provider_id, provided.provider_reservation_id,
       provided.provider_ip_address, provided.provider_location, provided.provider_status
FROM machine_provided AS provided
WHERE provided.provider = $2
  AND NOT EXISTS (
      SELECT 1 FROM machine_agent_started AS agent WHERE agent.machine_id = provided.machine_id
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
          AND backoff.process = 'ShepherdAgentStart'
          AND backoff.until > statement_timestamp()
  )
ORDER BY provided.machine_id
LIMIT $1;
