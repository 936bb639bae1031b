"""The scoring worker: history, top-k, write."""
