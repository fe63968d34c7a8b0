"""Starting runs as processes of their own from frozen configs."""
