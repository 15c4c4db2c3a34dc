"""Models alive on this machine."""
