"""Judgments by people: what they are asked, what they said, how far they agree, when it is enough."""
