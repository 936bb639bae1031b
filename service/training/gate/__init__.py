"""Which versions may go live, and which one the others are compared with."""
