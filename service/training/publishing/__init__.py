"""From what was learned to a version that readers can load."""
