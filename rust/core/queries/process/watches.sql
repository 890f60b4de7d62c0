-- What this process watches. Its row in processes is locked before, so that nobody else is about to change it.
SELECT tag, event FROM process_watch WHERE process = $1 ORDER BY tag, event
