-- A worker has asked for machines by this eligibility just now. One of many says so; it waits for nobody that does the same.
UPDATE process_eligibility SET seen = clock_timestamp()
WHERE process = $1::text AND fingerprint = $2::text AND seen < clock_timestamp() - interval '1 minute'
