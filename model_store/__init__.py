"""Versions of weights: their form, their storage, and the pointer to the live one. Knows no Kafka and no model."""
