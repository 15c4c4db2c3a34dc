"""Runs of changes: the change, its queue, plan, effects, downloads and retries."""
