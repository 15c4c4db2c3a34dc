"""Tools that the server calls for the model: the decisions, the calls, and the service around them."""
