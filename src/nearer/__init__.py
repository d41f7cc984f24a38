"""nearer."""
