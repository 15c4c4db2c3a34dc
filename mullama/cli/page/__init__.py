"""The terminal page: its state and its rows (pure), its connection, and in `screens` its widgets."""
