"""What a GGUF file tells, without loading it."""
