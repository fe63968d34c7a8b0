"""Optimizers and the grouping of parameters."""
