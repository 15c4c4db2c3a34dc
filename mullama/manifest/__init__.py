"""What the user wants: the manifest, as typed values."""
