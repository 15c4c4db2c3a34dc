"""Configures coding agents and other clients for a server: their files, as edits of single fields."""
