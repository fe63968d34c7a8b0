"""Saving, finding and loading the state of a run."""
