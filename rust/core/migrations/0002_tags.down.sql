DROP TABLE machine_os_installation_report;
DROP TABLE machine_os_installation_request;
DROP TABLE machine_hardware_report;
DROP TABLE machine_agent_heartbeat;
DROP TABLE machine_agent_started;
DROP TABLE machine_provided;
