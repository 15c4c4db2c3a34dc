"""The measurements of `make bench`: mullama against llama-server of the same llama.cpp, and its own overheads."""
