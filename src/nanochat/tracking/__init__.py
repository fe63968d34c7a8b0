"""Where numbers go while a run is under way: metrics.jsonl, wandb, tensorboard, the screen."""
