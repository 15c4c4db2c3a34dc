"""The document of one model: its values with their origins, its files, contexts, caches and worker."""
