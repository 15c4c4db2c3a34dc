"""What would change: pure comparison of wish, applied and observed."""
