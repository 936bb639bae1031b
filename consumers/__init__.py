"""From Kafka records to micro-batches of columns. Knows no torch and no Redis."""
