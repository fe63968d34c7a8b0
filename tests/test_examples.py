"""The scripts of examples/, run as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "examples" / "quickstart_check.py"


def check(base_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base_dir)}
    return subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("accuracy", "said", "code"), [(0.6, "30 of 50", 0), (0.58, "29 of 50", 1)])
def test_quickstart_check_needs_sixty_percent(tmp_path, accuracy, said, code):
    folder = tmp_path / "eval" / "quickstart-check"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"metrics": {"eval/chat/counting": accuracy}}))
    ended = check(tmp_path)
    assert said in ended.stdout
    assert ended.returncode == code


def test_quickstart_check_says_what_is_missing(tmp_path):
    ended = check(tmp_path)
    assert ended.returncode == 1
    assert "error: there is no" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_quickstart_check_counts_as_many_problems_as_are_asked():
    options = yaml.safe_load((ROOT / "conf" / "eval" / "counting.yaml").read_text())
    assert options["metrics_max_problems"] == options["tasks"]["counting"]["stop"] == 50
    assert "PROBLEMS = 50" in CHECK.read_text()
