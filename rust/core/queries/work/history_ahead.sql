-- Makes the partitions of history that are missing for the months to come. PostgreSQL only.
SELECT work_history_ahead() AS made
