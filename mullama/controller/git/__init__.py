"""The manifest from a git repository."""
