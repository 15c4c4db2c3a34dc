"""HTTP on a socket: listeners, protocol, bodies, framing and limits."""
