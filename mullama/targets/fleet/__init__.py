"""Several servers that one manifest describes: a controller changes them through their operator API."""
