"""The manifest: the desired state, as typed values."""
