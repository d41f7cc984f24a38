"""Generations: immutable indexes, built, verified, cut over and rolled back."""
