"""Selection of the next token: candidates, samplers, constraints and draft tokens."""
