"""Commands that work on a manifest: init, validate, diff, apply, lock, bundle, import, history, down."""
