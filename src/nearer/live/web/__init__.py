"""The search service and its dashboard."""
