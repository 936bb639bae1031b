"""Traffic to publish: a simulated shop, or a file of events."""
