"""OpenAI's Responses API: items in, items out, with the memory of earlier responses."""
