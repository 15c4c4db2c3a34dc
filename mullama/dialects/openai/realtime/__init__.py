"""OpenAI's realtime events: a conversation by text and voice over a WebSocket."""
