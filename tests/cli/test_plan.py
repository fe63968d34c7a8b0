"""`nanochat plan`: the numbers of the guide, pipelines and sweeps, with nothing trained."""

import re
from pathlib import Path

import pytest

from nanochat.cli.main import run_command
from nanochat.runtime.device import Machine


@pytest.fixture(autouse=True)
def base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


def planned(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run_command(["plan", *argv]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def value(shown: str, name: str) -> str:
    """The second column of a row."""
    line = next(line for line in shown.splitlines() if line.startswith(name + "  "))
    return line[len(name) :].split("  ")[1 if line[len(name) :].startswith("  ") else 0] or line[len(name) :].split()[0]


def test_d20_and_d26(capsys: pytest.CaptureFixture[str], base_dir: Path) -> None:
    shown = planned(capsys, "model.depth=20")
    assert value(shown, "parameters") == "560,988,160" and value(shown, "steps") == "21,400"
    shown = planned(capsys, "stage=base", "model.depth=26")
    assert (value(shown, "layers"), value(shown, "width"), value(shown, "heads")) == ("26", "1,664", "13")
    assert "learning-rate factor over" in shown and "identity " in shown
    assert not base_dir.exists()  # nothing is written


def test_each_number_has_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    shown = planned(capsys, "model.depth=4", "train.num_iterations=30")
    assert "train.num_iterations" in shown and "64 * depth" in shown and "ceil(width / 128)" in shown
    assert "(trapezoid)" in shown and "█" in shown


def test_a_pipeline_that_has_not_run(capsys: pytest.CaptureFixture[str], base_dir: Path) -> None:
    shown = planned(capsys, "stage=pipeline", "debug=tiny", "data.tasks.simple_spelling.stop=50")
    for title in ("tokenizer  ", "base/tiny", "mid/tiny", "sft/tiny", "eval  "):
        assert f"\n{title}" in "\n" + shown
    assert shown.count("learning-rate factor over 4 steps") == 3
    assert not (base_dir / "base").exists()


def test_a_sweep_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    shown = planned(capsys, "-m", "model.depth=4,20", "train.num_iterations=10")
    lines = shown.splitlines()
    assert len(lines) == 3 and "model.depth=4 train.num_iterations=10" in lines[1] and "560,988,160" in lines[2]


def test_a_sweep_over_stages_and_their_mixtures(capsys: pytest.CaptureFixture[str]) -> None:
    lines = planned(capsys, "-m", "stage=mid,sft", "data=mid_generated", "data.tasks.identity.repeat=2").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["mid", "sft"]


def test_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "warning: optim.matrix_lr=0.5" in planned(capsys, "model.depth=4", "optim.matrix_lr=0.5")


def test_own_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.yaml").write_text("defaults:\n  - gpt\n  - _self_\ndepth: 3\n")
    shown = planned(capsys, "model=small", "--config-dir", str(tmp_path))
    assert value(shown, "layers") == "3"


def test_identity(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-in-the-environment")
    prices = ["identity.price_in=1", "identity.price_out=10", "identity.requests_per_minute=50"]
    shown = planned(capsys, "stage=identity", "identity.count=100", *prices)
    assert value(shown, "requests, at least").strip() == "100"
    assert value(shown, "minutes, at least").strip() == "2.0"
    assert "dollars, about" in shown and "$OPENAI_API_KEY is set" in shown
    assert "sk-secret" not in shown
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "templates" in planned(capsys, "stage=identity")


def test_a_named_gpu_judges_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "model.depth=26", "runtime=rtx4090"]) == 1
    shown = capsys.readouterr().out
    assert "does not fit: train.device_batch_size=32 needs about" in shown and "the device has 24.00 GB" in shown
    rows = re.search(r"train.device_batch_size=(\d+) fits", shown)
    assert rows is not None
    fitting = f"train.device_batch_size={rows.group(1)}"
    assert "does not fit" not in planned(capsys, "model.depth=26", "runtime=rtx4090", fitting)
    assert run_command(["plan", "-m", "model.depth=4,26", "runtime=rtx4090"]) == 1
    assert "model.depth=26 runtime=rtx4090 does not fit" in capsys.readouterr().out


def test_this_machine_judges_the_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a runtime= names another."""
    small = Machine("cuda", "bfloat16", True, "a small GPU", 8 * 10**9, None)
    monkeypatch.setattr("nanochat.runtime.device.detect", lambda runtime: small)
    assert run_command(["plan", "model.depth=20", "runtime=h100", "--here"]) == 1
    assert "the device has 8.00 GB" in capsys.readouterr().out
    assert (
        run_command(
            [
                "plan",
                "--here",
                "model.depth=20",
                "train.device_batch_size=auto",
                "runtime.activation_checkpointing=true",
            ]
        )
        == 1
    )
    assert "not one row fits" in capsys.readouterr().out
