"""The cells of a context: which sequence holds which tokens, shared prefixes, slots and warm-up."""
