"""The trainer process: evaluate, learn, publish."""
