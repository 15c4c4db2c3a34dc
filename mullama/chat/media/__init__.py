"""Images and sounds of a conversation: their formats, their limits, and their places in a prompt."""
