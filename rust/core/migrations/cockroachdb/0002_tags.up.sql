-- The original's tags. A tag is any table machine_<name> whose primary key is machine_id referencing machines.
CREATE TABLE IF NOT EXISTS machine_provided (
    machine_id uuid NOT NULL,
    provider text NOT NULL,
    provider_id varchar(128) NOT NULL,
    provider_reservation_id varchar(128),
    provider_ip_address varchar(128),
    provider_location varchar(128),
    provider_status text,
    CONSTRAINT machine_provided_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_provided_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE,
    CONSTRAINT machine_provided_provider_id_key UNIQUE (provider, provider_id)
);

CREATE TABLE IF NOT EXISTS machine_agent_started (
    machine_id uuid NOT NULL,
    agent_started_at timestamptz NOT NULL,
    agent_public_key bytea NOT NULL,
    CONSTRAINT machine_agent_started_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_agent_started_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS machine_agent_started_public_key_idx ON machine_agent_started (agent_public_key);

CREATE TABLE IF NOT EXISTS machine_agent_heartbeat (
    machine_id uuid NOT NULL,
    agent_heartbeat_at timestamptz NOT NULL,
    CONSTRAINT machine_agent_heartbeat_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_agent_heartbeat_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS machine_hardware_report (
    machine_id uuid NOT NULL,
    hardware_report_raw bytea NOT NULL,
    CONSTRAINT machine_hardware_report_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_hardware_report_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS machine_os_installation_request (
    machine_id uuid NOT NULL,
    generation int4 NOT NULL,
    os_installation_request_raw bytea NOT NULL,
    CONSTRAINT machine_os_installation_request_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_os_installation_request_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS machine_os_installation_report (
    machine_id uuid NOT NULL,
    generation int4 NOT NULL,
    os_installation_result text NOT NULL,
    os_installation_report_raw bytea NOT NULL,
    CONSTRAINT machine_os_installation_report_pkey PRIMARY KEY (machine_id),
    CONSTRAINT machine_os_installation_report_machine_fkey FOREIGN KEY (machine_id) REFERENCES machines (machine_id) ON DELETE CASCADE
);
