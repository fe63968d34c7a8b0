"""nanochat's launchers."""
