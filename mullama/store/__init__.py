"""Files on disk: blobs, their index, stores of other tools, lock files and the state of server instances."""
