"""The widgets of the terminal page. Only this folder imports textual, the extra `mullama[tui]`."""
