"""Encoders: from a history of items to a direction in their space."""
