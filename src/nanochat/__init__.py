"""nanochat: train a small ChatGPT from nothing, every choice a Hydra config value."""
