"""Encoders, one a file: from a history of items to a direction in the space of items. See encoder.py."""
