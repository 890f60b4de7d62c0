-- The $1 sessions that have lived longest, each with the number of all live and of all expired ones.
SELECT s.session_id, s.session_component_name, s.session_created_at, s.session_interval_seconds, s.session_deadline,
       s.session_deadline > clock_timestamp() AS session_live,
       (SELECT count(*) FROM work WHERE work.session_id = s.session_id) AS session_leases, s.live, s.expired
FROM (
    SELECT *, count(CASE WHEN session_deadline > clock_timestamp() THEN 1 END) OVER () AS live,
           count(CASE WHEN session_deadline <= clock_timestamp() THEN 1 END) OVER () AS expired
    FROM sessions
    ORDER BY session_created_at, session_id
    LIMIT $1::bigint
) AS s
ORDER BY s.session_created_at, s.session_id
