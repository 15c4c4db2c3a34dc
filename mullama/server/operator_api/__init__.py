"""The operator API: health, metrics, plan, apply, history and events."""
