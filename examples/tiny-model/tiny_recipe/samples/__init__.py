"""What the model learns from and what it is examined with."""
