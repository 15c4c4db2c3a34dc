"""What runs a model: the seam, and one module or package per engine."""
