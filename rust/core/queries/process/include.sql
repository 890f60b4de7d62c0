-- Takes back the exclusions that the process has declared, other than these.
DELETE FROM process_exclusion WHERE process = $1 AND excluded <> ALL ($2::text[])
