"""Execution of a plan: observe, execute, files, lock file, garbage collection."""
