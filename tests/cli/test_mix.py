"""`nanochat mix`: what is shown of a mixture, which stage it is, and mixtures with nothing to learn."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shared_data import shared_data

from nanochat.cli.main import run_command
from nanochat.tokenizer.raw_bytes import bytes_tokenizer


@pytest.fixture(autouse=True)
def base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """Overrides for a mixture of two files: 3 long conversations, 2 short ones."""
    for name, count, answer in (("long", 3, "y" * 50), ("short", 2, "yes")):
        messages = [{"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": answer}]
        lines = [json.dumps({"messages": messages})] * count
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    tasks = [f"+data.tasks.{name}={{task:custom_json,path:{tmp_path}/{name}.jsonl}}" for name in ("long", "short")]
    return ["data=mixture", *tasks]


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run_command(["mix", *argv]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def row(text: str, name: str) -> list[str]:
    return next(re.split(r"  +", line) for line in text.splitlines() if line.startswith(name + "  "))


def test_a_mixture_in_bytes(capsys: pytest.CaptureFixture[str], base_dir: Path, own: list[str]) -> None:
    text = shown(capsys, "stage=sft", *own, "model.max_seq_len=512")
    assert text.startswith("sft/d20: data.tasks, order=shuffled, supervise=assistant\n")
    assert "no tokenizer bpe64k yet: the counts are UTF-8 bytes" in text and "512 tokens for 2,048 bytes" in text
    assert row(text, "long") == ["long", "3", "60.0", "1", "180", "153", "95.0", "60", "60", "0", "0", "0"]
    assert row(text, "all")[1] == "5"
    assert "packing pad: 5 rows of 2,049 bytes a pass" in text and "steps of 32 rows: 1 in a pass, 1 in the run" in text
    assert text.count("[[" + "y" * 50 + "<|assistant_end|>]]") == 2 == text.count("[[yes<|assistant_end|>]]")
    assert not base_dir.exists()


def test_with_a_tokenizer(capsys: pytest.CaptureFixture[str], base_dir: Path, own: list[str]) -> None:
    bytes_tokenizer().save(base_dir / "tokenizer" / "raw")
    argv = ["stage=sft", *own, "tokenizer.name=raw", "tokenizer.vocab_size=265", "model.max_seq_len=32"]
    text = shown(capsys, *argv, "--samples=1")
    assert f"tokenizer {base_dir}/tokenizer/raw" in text and "bytes" not in text
    assert row(text, "long")[4:] == ["99", "72", "90.0", "60", "60", "0", "3", "0"]  # cut to 33 tokens
    assert "packing pad: 5 rows of 33 tokens" in text
    assert text.count("row ") == 1 and "33 tokens, 24 supervised, cut from 60" in text
    assert row(shown(capsys, *argv, "data.too_long=drop", "--samples", "0"), "long")[4:6] == ["0", "0"]
    assert "warning: data.tasks: long: no token" in shown(capsys, "--exact", *argv, "data.too_long=drop")


def test_which_stage(capsys: pytest.CaptureFixture[str], own: list[str]) -> None:
    few = ["data.tasks.simple_spelling.stop=5", "data.tasks.spelling_bee.stop=5", "--samples", "0"]
    for argv, stage in (
        (["data=sft_generated", *few], "sft"),
        (["stage=base", "data=mid_generated", *few], "mid"),
        (own, "sft"),
    ):
        assert shown(capsys, *argv).startswith(f"{stage}/d20: ")


@pytest.mark.slow  # a pipeline is composed many times over
def test_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "stage=pipeline", "experiment=quickstart", "--samples", "0")
    assert text.index("mid/quickstart: ") < text.index("sft/quickstart: ")
    assert "550 in the run" in text and "context of 256 tokens" in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["stage=base"], "stage=base reads no mixture; write nanochat mix stage=mid or stage=sft"),
        (["data=embedded"], "data.kind=embedded is a corpus"),
        (["-m", "stage=mid,sft"], "mix shows one mixture"),
        (["--samples", "many"], "--samples many: it takes a number"),
        (["stage=sft", "data=mixture"], "data.tasks is empty"),
        (["stage=pipeline", "pipeline.stages=[tokenizer,base]"], "no stage of the pipeline reads a mixture"),
    ],
)
def test_errors(capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    assert run_command(["mix", *argv]) != 0
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and "Traceback" not in captured.err


def test_a_mixture_without_one_supervised_token(capsys: pytest.CaptureFixture[str], own: list[str]) -> None:
    for key, value, cause in (
        ("data.too_long", "drop", "5 dropped, being longer"),
        ("data.too_long", "truncate", "5 without a supervised token left"),
    ):
        assert run_command(["mix", "stage=sft", *own, f"{key}={value}", "model.max_seq_len=2"]) != 0
        said = capsys.readouterr().err
        assert f"data.too_long={value}: none of the 5 conversations" in said and cause in said
        assert "larger model.max_seq_len" in said


def test_one_conversation_that_a_sample_misses(
    capsys: pytest.CaptureFixture[str], own: list[str], tmp_path: Path
) -> None:
    """Of 3000 conversations one fits into the context: a sample alone would say that there is nothing to learn."""
    lines = (tmp_path / "long.jsonl").read_text().splitlines() * 1000
    lines[1] = (tmp_path / "short.jsonl").read_text().splitlines()[0]
    (tmp_path / "long.jsonl").write_text("\n".join(lines))
    text = shown(capsys, "stage=sft", *own[:2], "data.too_long=drop", "model.max_seq_len=4")
    assert row(text, "long")[1:6] == ["3,000", "100.0", "1", "14", "4"] and "2,999" in row(text, "long")
    assert text.count("[[yes<|assistant_end|>]]") == 1


def test_weights_and_order(capsys: pytest.CaptureFixture[str], own: list[str], tmp_path: Path) -> None:
    tasks = [f"+data.tasks.{n}.weight={w}" for n, w in (("long", 1), ("short", 1))]
    text = shown(capsys, "stage=sft", *own, *tasks, "--exact")
    assert row(text, "long")[1:4] == ["2", "50.0", "0.6667"] and row(text, "short")[1:4] == ["2", "50.0", "1"]
    by_tokens = [*tasks, "+data.tasks.short.repeat=20", "data.weight_by=tokens", "data.order=length"]
    text = shown(capsys, "stage=sft", *own, *by_tokens)  # 160 bytes of the short ones, 3 * 51 of the long ones
    assert row(text, "long")[1:7] == ["3", "7.3", "1", "180", "153", "50.2"] and "order=length" in text
    assert run_command(["mix", "stage=sft", *own, tasks[0]]) != 0
    assert "short has no weight" in capsys.readouterr().err


def test_colours_on_a_terminal(own: list[str], base_dir: Path) -> None:
    """In a real terminal of 80 columns."""
    code = "import sys; from nanochat.cli.main import run_command; sys.exit(run_command(sys.argv[1:]))"
    text = on_terminal([sys.executable, "-c", code, "mix", "stage=sft", *own])
    assert "\x1b[1;32m" in text and "supervised tokens are green" in text and "[[" not in text
    table = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines() if "long  " in line]
    assert len(table) == 2 and max(len(line.rstrip()) for line in table) <= 80


def test_no_color(capsys: pytest.CaptureFixture[str], own: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(capsys, "stage=sft", *own)
    assert "[[yes" in text and "\x1b[1;32m" not in text


def on_terminal(argv: list[str]) -> str:
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environ = {**kept, "COLUMNS": "80", "TERM": "xterm-256color"}
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            text += piece
    os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


def test_the_guides_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    hub = f"hub_root={shared_data('hub')}"
    text = shown(capsys, "stage=sft", hub, "data.word_list=packaged", "--samples", "7")
    names = ["arc_easy", "arc_challenge", "gsm8k", "smoltalk", "identity", "simple_spelling", "spelling_bee"]
    assert [row(text, name)[1] for name in names[:4]] == ["2,251", "1,119", "7,473", "10,000"]
    assert [text.count(f"\n{name}, row ") for name in names] == [1] * 7
    assert "<|python_end|>]]<|output_start|>" in text
