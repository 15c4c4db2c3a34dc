"""Commands that work on models: pull, list, show, create, load, rm, cache, hub, tune, quantize."""
