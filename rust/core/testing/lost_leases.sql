SELECT count(*) FROM work_history WHERE event = 'Lost'
