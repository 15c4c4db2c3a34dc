"""The llama.cpp engine: continuous batching over the binding's low-level calls."""
