"""Rate limits of keys and models."""
