-- The watcher is still there: a day without this, and its notes may be stopped (see work_watch). Waits for nobody.
UPDATE process_watch SET seen = clock_timestamp() WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM process_watch WHERE process = $1::text AND watcher = $2::text FOR UPDATE SKIP LOCKED
))
