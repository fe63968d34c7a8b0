"""The one loop, its objectives, hooks and schedules."""
