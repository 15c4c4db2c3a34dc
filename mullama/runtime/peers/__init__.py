"""Other servers that answer requests of routes, by OpenAI's API: their requests, answers, health and choice."""
