"""Export of traces and metrics to a collector."""
