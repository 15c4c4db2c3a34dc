"""Output on a terminal: streams, tables, colours and progress."""
