"""A loss, a vector store, a guardrail and a simpler fix for nearer, from outside."""
