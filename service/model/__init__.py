"""The model itself, without input or output: channels of candidates and how they are combined."""
