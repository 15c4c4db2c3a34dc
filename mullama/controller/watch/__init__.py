"""Watches the files of a manifest and starts a reconcile when they change."""
