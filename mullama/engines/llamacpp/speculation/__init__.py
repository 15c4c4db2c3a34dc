"""Speculative decoding: tokens are guessed ahead, and the model verifies all of them in one decode."""
