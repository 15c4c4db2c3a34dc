"""The Model Context Protocol: mullama's operator API as tools, resources and prompts of an assistant."""
