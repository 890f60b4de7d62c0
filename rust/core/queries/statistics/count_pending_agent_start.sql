-- How many machines of all providers workflow/agent_start.sql would offer: keep the conditions alike.
SELECT count(*) AS machines
FROM machine_provided AS provided
WHERE NOT EXISTS (
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
  );
