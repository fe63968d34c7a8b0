"""The first word decides; help and completions; how soon the command answers."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.cli.main import run_command
from nanochat.config.options import group_names, option_names

NANOCHAT = Path(sys.executable).with_name("nanochat")


def shell(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    env = {**os.environ, **environment}
    return subprocess.run([NANOCHAT, *argv], capture_output=True, text=True, check=False, env=env)


def seconds(*argv: str) -> float:
    """Processor time of the command, the lower of two: what a machine with nothing else to do would take at most."""
    times = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shell(*argv)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"], ["stage=mid", "--help"]])
def test_help_names_commands_groups_and_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(argv) == 0
    shown = capsys.readouterr().out
    for verb in ("plan", "chat", "runs"):
        assert f"\n  {verb} " in shown
    groups = shown.partition("Config groups")[2]  # `data` is a command too
    for group in group_names():
        line = next(line for line in groups.splitlines() if line.startswith(f"  {group} "))
        assert all(option in line for option in option_names(group))
    assert "experiment=quickstart" in shown and "--cfg job" in shown


def test_commands_have_help_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "--help"]) == 0
    assert "nanochat plan" in capsys.readouterr().out


def test_the_config_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["stage=sft", "model.depth=7", "experiment=large", "--cfg", "job", "--resolve"]) == 0
    shown = capsys.readouterr().out
    assert "\n  depth: 7\n" in shown and "device_batch_size: 2\n" in shown and "${" not in shown
    assert run_command(["plan", "model.depth=7", "--cfg", "job"]) == 0
    assert "\n  depth: 7\n" in capsys.readouterr().out


def test_the_config_is_shown_by_the_installed_command() -> None:
    ended = shell("stage=mid", "--cfg", "job", "--resolve", NANOCHAT_BASE_DIR="/some/where")
    assert ended.returncode == 0 and ended.stderr == "" and "base_dir: /some/where\n" in ended.stdout


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("nanochat model.de", ["model.depth="], ["model.head_dim="]),
        ("nanochat sta", ["stage="], ["optim="]),
        ("nanochat stage=", ["stage=base", "stage=sft", "stage=pipeline"], []),
        ("nanochat stage=s", ["stage=sft"], ["stage=base"]),
        ("nanochat experiment=", ["experiment=quickstart", "experiment=fast"], []),
        ("nanochat optim=muon_adamw optim.momentum.", ["optim.momentum.start=", "optim.momentum.end="], []),
        ("nanochat stage=mid data.tasks.", ["data.tasks.identity.", "data.tasks.gsm8k."], []),
        ("nanochat plan model.de", ["model.depth="], []),
        ("nanochat pl", ["plan"], ["chat"]),
    ],
)
def test_completion(line: str, wanted: list[str], unwanted: list[str]) -> None:
    ended = shell("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert ended.returncode == 0 and ended.stderr == ""
    words = ended.stdout.split()
    assert set(wanted) <= set(words) and not set(unwanted) & set(words)


@pytest.mark.parametrize("kind", ["bash", "fish"])
def test_completion_can_be_installed(kind: str) -> None:
    ended = shell("-sc", f"install={kind}")
    assert ended.returncode == 0 and "nanochat" in ended.stdout


def test_help_within_a_second() -> None:
    assert seconds("--help") < 1.0


@pytest.mark.parametrize("argv", [["model.dpth=4"], ["model.depth=9"], ["optim=adamv"], ["stage=sft", "data=embedded"]])
def test_config_errors_within_two_seconds(argv: list[str]) -> None:
    assert seconds(*argv) < 2.0


QUICK = [
    ["--help"],
    ["plan", "--help"],
    ["model.dpth=4"],
    ["model.depth=9"],
    ["plan", "model.depth=4"],
    ["plan", "stage=sft", "train.num_iterations=5"],
    ["--cfg", "job"],
    ["runs", "ls"],
]


@pytest.mark.parametrize("argv", QUICK, ids=" ".join)
def test_no_torch_where_nothing_is_trained(argv: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom nanochat.cli.main import run_command\n"
        "try:\n    run_command(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'datasets', 'wandb', 'matplotlib', 'tensorboard'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program, *argv]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "imported" not in ended.stderr and ended.returncode == 0
