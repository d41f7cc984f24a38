"""Models that turn texts into vectors, what identifies them, and vectors already computed."""
