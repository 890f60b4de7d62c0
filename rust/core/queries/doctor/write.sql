-- What is told from now on may write, whatever the role begins with.
SELECT set_config('default_transaction_read_only', 'off', false) AS read_only
