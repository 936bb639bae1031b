"""The producer, on its way to `consumers`."""
