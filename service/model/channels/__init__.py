"""The channels, one a file; ../registry.py names them."""
