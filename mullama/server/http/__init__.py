"""HTTP on a socket: listeners, protocol, bodies, JSON and limits."""
