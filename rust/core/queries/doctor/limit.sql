-- No look of the doctor may take longer than $1 milliseconds; for this transaction alone.
SELECT set_config('statement_timeout', $1::text, true) AS milliseconds
