"""The vocabulary of a conversation: pure values, templates, readers and constraints."""
