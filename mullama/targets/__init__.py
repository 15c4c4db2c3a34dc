"""Targets beyond one machine, each in a package of its own: they carry out the plan of a manifest elsewhere."""
