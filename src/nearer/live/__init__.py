"""What runs in production: indexes, vector stores, traffic, rollouts, monitoring and the web service."""
