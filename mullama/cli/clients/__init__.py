"""Commands for coding agents and other programs that use a server."""
