import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.cli.runs import default_base_dir, main
from nanochat.errors import ConfigError, MissingError


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    for ref, lr in (("base/d4", 0.02), ("base/d6", 0.01)):
        folder = tmp_path / ref
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"optim: {{matrix_lr: {lr}}}\n")
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 3, "train/loss": lr}) + "\n")
    return tmp_path


def test_listing_showing_and_comparing(base_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--base-dir", str(base_dir)]) == 0
    assert {"base/d4", "base/d6"} <= set(capsys.readouterr().out.split())
    assert main([f"base_dir={base_dir}", "show", "base/d6"]) == 0
    assert "train/loss" in capsys.readouterr().out
    assert main(["diff", f"--base-dir={base_dir}", "base/d4", "base/d6"]) == 0
    assert ["optim.matrix_lr", "0.02", "0.01"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_folder_comes_from_the_environment(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base_dir))
    assert main(["ls", "base"]) == 0 and "base/d4" in capsys.readouterr().out
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base_dir / "new"))
    assert main(["ls"]) == 0 and "quickstart" in capsys.readouterr().out
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    assert default_base_dir() == Path.home() / ".cache/nanochat"


def test_mistakes_are_told(base_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingError, match="base/d4"):
        main(["show", "base/d5", f"base_dir={base_dir}"])
    for words in (["base_dir=", "ls"], ["ls", "--base-dir"]):
        with pytest.raises(ConfigError, match="needs a folder"):
            main(words)
    for words in ([], ["lst"], ["show"], ["ls", "bse"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
    assert "usage: nanochat runs" in capsys.readouterr().err


def run_in_process(code: str, base_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(base_dir)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_it_imports_nothing_heavy_and_answers_at_once(base_dir: Path) -> None:
    heavy = "torch", "numpy", "matplotlib", "wandb", "rich", "hydra", "safetensors"
    code = f"import sys; from nanochat.cli.runs import main; main(['ls']); assert not sys.modules.keys() & set({heavy})"
    start = time.perf_counter()
    done = run_in_process(code, base_dir)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 3  # 0.15 s on an idle machine


def test_a_reader_that_stops_early_is_no_error(base_dir: Path) -> None:
    code = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); from nanochat.cli.runs import main; main(['ls'])"
    )
    done = run_in_process(code, base_dir)
    assert (done.returncode, done.stderr) == (0, "")
