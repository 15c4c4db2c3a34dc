"""How commands find their server, and follow its tasks."""
