"""The cells of a context: tokens of each sequence, shared prefixes, slots, declared prefixes."""
