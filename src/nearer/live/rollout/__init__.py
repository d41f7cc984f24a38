"""A candidate generation compared with the active one on real traffic."""
