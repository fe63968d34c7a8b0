"""Lets the tests of this folder import data_stand_ins (with --import-mode=importlib the folder is not on the path)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
