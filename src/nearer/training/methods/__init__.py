"""What is trained: all weights, some layers, one side, or an adapter over fixed vectors."""
