"""Inference: KV cache, sampling, tools."""
