"""Judging a model: bits per byte, samples, tasks."""
