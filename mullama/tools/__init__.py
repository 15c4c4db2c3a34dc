"""Providers of tools for models: servers of the Model Context Protocol, and tools of mullama itself."""
