"""How good lists are: the measures, and what is ranked before it is learned from."""
