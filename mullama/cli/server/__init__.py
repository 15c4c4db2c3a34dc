"""Commands that run or inspect a server: serve, daemon, status, logs, doctor."""
