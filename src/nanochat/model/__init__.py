"""The network. Knows nothing of optimizers."""
