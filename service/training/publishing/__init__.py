"""Making versions that readers can load of what was learned."""
