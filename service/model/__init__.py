"""The model itself, without input or output: channels, and the blend that combines their scores."""
