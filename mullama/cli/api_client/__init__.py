"""The HTTP client of the commands: discovery of a server, requests, errors and tasks."""
