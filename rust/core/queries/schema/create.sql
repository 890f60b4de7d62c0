CREATE TABLE IF NOT EXISTS bmdb_schema (
    version bigint NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT bmdb_schema_pkey PRIMARY KEY (version)
)
