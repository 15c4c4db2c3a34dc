"""The plan: the difference between the desired, applied and observed state. Pure functions and values."""
