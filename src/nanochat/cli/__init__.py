"""Commands: parse, compose, dispatch."""
