-- How many connections there are, and how many this role and this database may have. What kind they are, not everybody may see.
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::bigint AS used,
       (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS by_role,
       (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()) AS by_database,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit
