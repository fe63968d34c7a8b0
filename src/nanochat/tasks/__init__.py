"""Conversations to learn from and to be judged by. No torch."""
