"""Keeps the runtime at the manifest: reconciler, effects, watch, history, status and events."""
