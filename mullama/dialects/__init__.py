"""The wire formats of the conversation vocabulary, one module or package each."""
