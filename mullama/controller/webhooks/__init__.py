"""Webhooks: the messages for events, and their delivery."""
