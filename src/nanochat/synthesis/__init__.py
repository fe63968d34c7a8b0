"""Conversations about a persona: from an HTTP endpoint or from templates; checked, deduplicated, kept."""
