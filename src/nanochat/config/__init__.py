"""What can be asked for: one dataclass per config group, checked when composing."""
