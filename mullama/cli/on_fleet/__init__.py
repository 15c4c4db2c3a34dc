"""Commands on all hosts of a fleet manifest, in place of one server."""
