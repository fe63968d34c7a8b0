"""Byte-level BPE, chat rendering and the loss mask. No torch."""
