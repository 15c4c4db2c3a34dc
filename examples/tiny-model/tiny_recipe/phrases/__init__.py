"""The words and sentences that the samples are made of: lists only, no logic."""
