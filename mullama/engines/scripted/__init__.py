"""A deterministic engine that answers from a script, for tests, examples and measurements without a model."""
