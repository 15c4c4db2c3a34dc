"""Worker processes: the parent side, the child, and the protocol between them."""
