"""Requests on loaded models: routing, completion, aggregation and stored responses."""
