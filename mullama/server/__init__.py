"""HTTP: one generic handler, guards, and the operator's endpoints."""
