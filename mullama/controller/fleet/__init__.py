"""The part of a server in a fleet: the lease of its controller."""
