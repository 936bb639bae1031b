"""Versions of weights: what they are, how they are stored, who may move the pointer. Knows no Kafka and no model."""
