-- Which database this is: copies of one cluster share its identifier, so that a failover changes nothing.
SELECT current_database()::text AS name, (SELECT system_identifier FROM pg_control_system()) AS system
