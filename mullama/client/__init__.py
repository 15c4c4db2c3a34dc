"""HTTP client of the operator API: for commands, and for the controller of a fleet."""
