"""PostgreSQL: a real server, started for the run, restarted, cut off and lied to."""
