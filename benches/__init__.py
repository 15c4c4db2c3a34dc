"""What `make bench` measures: mullama beside llama-server of the same llama.cpp, and beside its own limits."""
