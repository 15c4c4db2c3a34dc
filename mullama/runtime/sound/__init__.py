"""Long sounds of requests: a process of its own decodes each and cuts it into windows."""
