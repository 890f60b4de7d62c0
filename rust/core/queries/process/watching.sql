-- The watcher is still there: a day without this, and its notes may be stopped (see work_watch).
UPDATE process_watch SET seen = clock_timestamp() WHERE process = $1::text AND watcher = $2::text
