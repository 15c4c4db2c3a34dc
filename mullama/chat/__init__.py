"""One vocabulary for a conversation: pure values, templates, readers and constraints."""
