"""Media in the worker: the checks of their files, their vectors, and their runs in prompts and in memory.

Nothing here is imported for a context without a projector.
"""
