"""Search that feeds a language model: what it reads, and what it answers from it."""
