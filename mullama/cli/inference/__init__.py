"""Commands that run a model: run, chat, tokenize, embed, bench."""
