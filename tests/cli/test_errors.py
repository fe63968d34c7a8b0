"""Wrong command lines: one paragraph on stderr that names the key, the value and the way out; no traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workshop import Workshop

from nanochat.cli.main import run_command

BAD_CONVERSATIONS = '{"messages": []}\nno json\n'
# (command line, exit code, what the message must say). {tmp} is a folder with a few wrong files.
WRONG: list[tuple[str, int, list[str]]] = [
    # keys
    ("model.dpth=4", 2, ["model.dpth", "did you mean model.depth?"]),
    ("+model.dpth=4", 2, ["model.dpth", "did you mean model.depth?"]),
    ("++model.dpth=4", 2, ["model.dpth", "did you mean model.depth?"]),
    ("optm=adamw", 2, ["optm is not a key", "did you mean optim?"]),
    ("wandb.mode=offline", 2, ["wandb is not a key", "did you mean tracking.wandb?"]),
    ("foo=3", 2, ["foo is not a key", "groups: data,", "keys: base_dir,"]),
    ("+foo=3", 2, ["foo is not a key"]),
    ("~foo", 2, ["foo is not a key"]),
    ("matrix_lr=0.1", 2, ["did you mean optim.matrix_lr?"]),
    ("depth=4", 2, ["did you mean model.depth?"]),
    ("optim.lr=0.1", 2, ["optim.lr is not a key", "embedding_lr", "matrix_lr"]),
    ("optim.momentum.strt=0.9", 2, ["did you mean optim.momentum.start?"]),
    ("model.depth.x=3", 2, ["model.depth is a single value"]),
    ("optim.momentum=0.9", 2, ["optim.momentum=0.9", "optim.momentum.start"]),
    ("train=3", 2, ["train is a group of keys", "train.num_iterations"]),
    ("stages.sft=[train.num_epochs=2]", 2, ["belongs in the file of an experiment", "pipeline.overrides.sft"]),
    # keys of other options
    ("schedule=cosine schedule.warmdown_ratio=0.3", 2, ["of schedule=cosine", "schedule=trapezoid"]),
    ("optim=adamw optim.momentum.start=0.9", 2, ["of optim=adamw", "belongs to optim=muon_adamw"]),
    ("optim.momentum.final=0.9", 2, ["not a key of optim=muon_adamw", "it belongs to optim=muon_modern"]),
    ("objective.coefficient=0.1", 2, ["of objective=next_token", "belongs to objective=z_loss"]),
    ("data.tasks.identity.repeat=3", 2, ["data=embedded", "it belongs to data=math or data=mid or"]),
    ("stage=mid data.val_every=3", 2, ["data=mid", "belongs to data=embedded"]),
    # options
    ("optim=adamv", 2, ["optim=adamv is not an option", "adamw"]),
    ("stage=bse", 2, ["stage=bse", "did you mean base?"]),
    ("experiment=quik", 2, ["experiment=quik", "did you mean quickstart?"]),
    ("tracking=[wandb,tensorbord]", 2, ["tracking=tensorbord", "did you mean tensorboard?"]),
    ("optim=null", 2, ["optim=null is not an option", "known: adamw"]),
    ("optim.name=adamw", 2, ["write optim=adamw"]),
    ("+model=gpt", 2, ["write model=... without the +"]),
    ("model@x=gpt", 2, ["without the @"]),
    ("~optim", 2, ["choose an option, for example optim="]),
    ("optim/deep=adamw", 2, ["optim/deep is not a group"]),
    ("stage=[base,mid]", 2, ["stage=pipeline"]),
    ("hydra/launcher=slrm -m seed=1,2", 2, ["hydra/launcher=slrm", "local"]),
    # types, bounds, enums
    ("model.depth=four", 2, ["model.depth=four", "whole number, at least 1 and at most 1000"]),
    ("model.depth=2.5", 2, ["model.depth=2.5", "whole number"]),
    ("model.depth=", 2, ["model.depth=", "whole number"]),
    ("model.depth=0", 2, ["model.depth=0 is out of range", "at least 1"]),
    ("model.depth=null", 2, ["model.depth=null is not allowed"]),
    ("plan train.target_param_data_ratio=1e300", 2, ["target_param_data_ratio=1e+300", "at most 1e+06"]),
    ("schedule.warmdown_ratio=1.5", 2, ["schedule.warmdown_ratio=1.5", "at least 0 and at most 1"]),
    ("train.total_batch_size=lots", 2, ["train.total_batch_size=lots", "a whole number, auto or null"]),
    ("train.device_batch_size=2.5", 2, ["train.device_batch_size=2.5", "a whole number or auto"]),
    ("runtime.compile=perhaps", 2, ["runtime.compile=perhaps", "true, false or null"]),
    ("runtime.device=gpu", 2, ["runtime.device=gpu", "auto, cpu, cuda, mps"]),
    ("resume=maybe", 2, ["resume=maybe", "auto, must, never"]),
    ("tags=3", 2, ["tags=3", "a list of texts"]),
    ("schedule=step schedule.milestones=[a,b]", 2, ["schedule.milestones[0]=a", "a number"]),
    ("stage=mid data.tasks=3", 2, ["data.tasks=3", "a dict"]),
    ("eval.core_every=-2", 2, ["eval.core_every=-2", "-1"]),
    ("model.depth=${foo}", 2, ["model.depth=${foo}", "no key foo"]),
    # grammar
    ("model.depth=[1", 2, ["'model.depth=[1' cannot be read", "quote"]),
    ("=4", 2, ["names no key"]),
    ("model.depth=2,4", 2, ["model.depth=2,4 names several values", "-m"]),
    # mixtures
    ("stage=mid ~data.tasks.foo", 2, ["~data.tasks.foo", "gsm8k, identity, mmlu, simple_spelling, sm"]),
    ("stage=mid ~data.tasks.smaltalk", 2, ["did you mean smoltalk?"]),
    ("stage=mid data.tasks.identiy.repeat=3", 2, ["no identiy in data.tasks", "did you mean identity?"]),
    ("stage=mid data.tasks.identity.repeet=3", 2, ["no repeet", "did you mean repeat?"]),
    ("plan stage=mid data=mixture +data.tasks.x={task:arithmetc}", 2, ["data.tasks.x.task=arithmetc", "arithmetic"]),
    ("plan data=mixture stage=mid +data.tasks.x={task:custom_json,path:{tmp}/bad.jsonl}", 2, ["bad.jsonl:1", "2 line"]),
    ("plan data=mixture stage=mid +data.tasks.x={task:custom_json,path:{tmp}/no.jsonl}", 1, ["x.path", "no.jsonl"]),
    ("plan stage=mid data=mixture", 2, ["data.tasks is empty", "+data.tasks.mine="]),
    ("plan stage=mid", 1, ["data.tasks.smoltalk", "HuggingFaceTB/smol-smoltalk", "hub_root=", "~data.tasks.smoltalk"]),
    ("plan stage=mid hub_root={tmp}/none", 1, ["hub_root={tmp}/none: no such folder"]),
    ("plan stage=mid hub_root={tmp}", 1, ["HuggingFaceTB/smol-smoltalk/default/train-", "~data.tasks.smoltalk"]),
    ("plan stage=mid data=mixture +data.tasks.x={_target_:my.Task}", 2, ["x._target_=my.Task", "plugins='[my]'"]),
    # words
    ("tokenizer", 2, ["'tokenizer' is neither a command", "did you mean stage=tokenizer?"]),
    ("plann", 2, ["did you mean plan?"]),
    ("quickstart", 2, ["did you mean experiment=quickstart?"]),
    ("stage=base sft", 2, ["'sft' is no override", "stage=sft"]),
    ("stage=base plan", 2, ["'plan' is a command and comes first"]),
    ("--multirn seed=1", 2, ["--multirn is no flag", "did you mean --multirun"]),
    ("--cfg jb", 2, ["--cfg jb", "job"]),
    ("--config-dir {tmp}/none seed=1", 2, ["--config-dir {tmp}/none", "no such folder"]),
    # sizes
    ("model.depth=9", 2, ["model.depth=9", "nearest legal depths: 6, 7, 8, 10", "model.round_width=true"]),
    ("model.gqa_ratio=3", 2, ["model.gqa_ratio=3", "legal: 1, 2, 5, 10"]),
    ("train.total_batch_size=1000", 2, ["train.total_batch_size=1000", "model.max_seq_len=2048", "legal: 2048"]),
    ("plan train.target_flops=1", 2, ["train.target_flops=1", "less than one step"]),
    ("schedule=step schedule.milestones=[0.5]", 2, ["1 values", "schedule.factors 2"]),
    ("data=sft", 2, ["stage=base reads a corpus", "data=embedded"]),
    ("stage=sft data=embedded", 2, ["stage=sft", "data=sft"]),
    # names and files
    ("run=a/b", 2, ["run=a/b is not a folder name"]),
    ("run=..", 2, ["run=.. is not a folder name"]),
    ("tokenizer.name=../x", 2, ["tokenizer.name=../x"]),
    ("base_dir=", 2, ["base_dir="]),
    ("base_dir={tmp}/bad.jsonl/x", 1, ["base_dir={tmp}/bad.jsonl/x", "Not a directory"]),
    ("data=text", 2, ["data.root has no value", "data.root=..."]),
    ("data.root={tmp}", 2, ["not read by data=embedded", "data=text data.root={tmp}"]),
    ("plan data=text data.root={tmp}/none", 1, ["data.root={tmp}/none", "bad.jsonl"]),
    # what is missing
    ("stage=sft init_from=base/none", 1, ["base/none", "nanochat stage=base run=none"]),
    ("stage=base", 1, ["no tokenizer in", "nanochat stage=tokenizer"]),
    ("chat sft/none", 1, ["sft/none", "nanochat stage="]),
    # pipelines and sweeps
    ("stage=pipeline train.num_iterations=3", 2, ["no stage of the pipeline", "pipeline.overrides.base="]),
    ("stage=pipeline pipeline.stages=[base,md]", 2, ["md is no stage", "did you mean mid?"]),
    ("stage=pipeline pipeline.overrides.bse=[seed=1]", 2, ["no bse in pipeline.overrides", "did you mean base?"]),
    ("stage=pipeline pipeline.overrides.base=[model.dpth=1]", 2, ["model.dpth", "did you mean model.depth?"]),
    ("stage=pipeline data.tasks.smaltalk.repeat=2", 2, ["no smaltalk in data.tasks", "did you mean smoltalk?"]),
    ("-m model.depth=4,x", 2, ["model.depth=x", "whole number"]),
    ("-m seed=1,1", 2, ["two jobs of the multirun would write to"]),
    ("plan -m stage=tokenizer seed=1,2", 2, ["trains no model"]),
]


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    (tmp_path / "bad.jsonl").write_text(BAD_CONVERSATIONS)
    return tmp_path


def assert_one_paragraph(code: int, err: str, wanted: int, said: list[str]) -> None:
    assert code == wanted
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert "Traceback" not in err and "hydra.cc" not in err and "full_key" not in err and len(err) < 600
    for part in said:
        assert part in err, err


@pytest.mark.parametrize(("line", "code", "said"), WRONG, ids=[line for line, _, _ in WRONG])
def test_wrong_command_lines(
    line: str, code: int, said: list[str], tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = run_command(line.replace("{tmp}", str(tmp)).split())
    assert_one_paragraph(given, capsys.readouterr().err, code, [part.replace("{tmp}", str(tmp)) for part in said])


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 30 and len({line for line, _, _ in WRONG}) == len(WRONG)


def test_continuing_what_is_not_there(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command(workshop.overrides("base", "run=nothing_yet", "resume=must"))
    assert_one_paragraph(code, capsys.readouterr().err, 1, ["resume=must", "nothing_yet", "resume=auto"])


def test_another_size_than_the_tokenizer_has(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command(workshop.overrides("base", "tokenizer.vocab_size=400"))
    said = ["tokenizer.vocab_size=400", "300", "tokenizer.name"]
    assert_one_paragraph(code, capsys.readouterr().err, 1, said)


def test_malformed_lines_of_a_corpus(tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp / "corpus").mkdir()
    (tmp / "corpus" / "a.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + '{"txt": 3}\n')
    line = ["stage=tokenizer", "data=text", f"data.root={tmp}/corpus", "tokenizer.vocab_size=300"]
    code = run_command(line)
    assert_one_paragraph(code, capsys.readouterr().err, code, ["a.jsonl:2"])
    assert code != 0


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["model.dpth=4"], 2, ["model.dpth", "did you mean model.depth?"]),
        (["stage=sft", "init_from=mid/none"], 1, ["mid/none", "nanochat stage=mid run=none"]),
        (["model.depth=9"], 2, ["model.depth=9", "round_width"]),
        (["-m", "model.depth=2,x"], 2, ["model.depth=x"]),
    ],
)
def test_as_processes(argv: list[str], code: int, said: list[str], tmp: Path) -> None:
    ended = subprocess.run([sys.executable, "-m", "nanochat.train", *argv], capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    assert_one_paragraph(ended.returncode, ended.stderr, code, said)


def test_a_traceback_is_there_when_it_is_asked_for(tmp: Path) -> None:
    environment = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    command = [sys.executable, "-m", "nanochat.train", "model.dpth=4"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "did you mean model.depth?" in ended.stderr
