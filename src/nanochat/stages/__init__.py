"""What each stage is, in a few dozen lines each."""
