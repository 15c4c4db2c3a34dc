"""The HTTP server: routes and handlers of all dialects, checks of each request, and the operator API."""
