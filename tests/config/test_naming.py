"""Names of runs, of their folders and of the jobs of a multirun."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.checks import check_name
from nanochat.config.load import compose_run
from nanochat.config.naming import base_dir, job_name, run_dir, run_name, run_of_ref, tokenizer_dir, with_names
from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return compose_run(["model.depth=4"]).config


def test_a_run_is_named_by_its_depth_or_its_origin(config: RunConfig) -> None:
    sft = compose_run(["stage=sft", "model.depth=4"]).config
    assert run_name(config) == "d4" and run_name(replace(config, run="x")) == "x"
    assert run_name(replace(sft, init_from="mid/mine@300")) == "mine"
    assert run_name(replace(sft, init_from="mid/mine", run="other")) == "other"
    assert run_name(replace(config, init_from="base/trunk@8000")) == "d4"  # a branch is not its trunk


@pytest.mark.parametrize(
    ("ref", "run"),
    [
        ("sft/d20", "d20"),
        ("sft/d20@500", "d20"),
        ("base/a=b-c.5@1", "a=b-c.5"),
        ("./out/base/d4", "d4"),
        ("/data/base/d4/", "d4"),
        ("~/x/base/d4/checkpoints/step_000500", "d4"),
        ("../base/d4/checkpoints", "d4"),
    ],
)
def test_the_run_of_a_reference(ref: str, run: str) -> None:
    assert run_of_ref(ref) == run


def test_folders(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(config, base_dir=str(tmp_path))
    assert run_dir(here) == tmp_path / "base" / "d4"
    assert tokenizer_dir(here) == tmp_path / "tokenizer" / "bpe64k"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base_dir(replace(config, base_dir="~/runs")) == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert base_dir(replace(config, base_dir="../x")) == tmp_path.parent / "x"
    named = with_names(replace(config, base_dir="runs"))
    assert named.run == "d4" and named.base_dir == str(tmp_path / "runs")


def test_a_job_is_named_by_what_is_swept() -> None:
    overrides = ["stage=base", "optim.matrix_lr=0.01", "model.depth=4", "eval.every=3"]
    swept = ["optim.matrix_lr", "model.depth"]
    assert job_name("quickstart", overrides, swept) == "quickstart-depth=4-matrix_lr=0.01"
    assert job_name("x", ["run=x", "stage=mid"], ["run", "stage"]) == "x"
    assert job_name("x", ["+data.tasks.mine.stop=5"], ["data.tasks.mine.stop"]) == "x-stop=5"
    assert job_name("x", ["optim=adamw"], ["optim"]) == "x-optim=adamw"
    assert job_name("x", ["model.depth=4", "model.depth=6"], ["model.depth"]) == "x-depth=6"  # the last one wins


def test_keys_that_end_alike_are_told_apart() -> None:
    keys = ["data.tasks.a.repeat", "data.tasks.b.repeat", "eval.every"]
    overrides = [f"{key}={i}" for i, key in enumerate(keys)]
    assert job_name("x", overrides, keys) == "x-a.repeat=0-b.repeat=1-every=2"


def test_long_and_ambiguous_names_end_in_a_hash() -> None:
    keys = [f"group.some_rather_long_key_{i}" for i in range(6)]
    first = job_name("run", [f"{k}=1" for k in keys], keys)
    second = job_name("run", [f"{k}={2 if k == keys[-1] else 1}" for k in keys], keys)
    assert len(first) == len(second) == 80 and first != second and first[:60] == second[:60]
    listed, other = (
        job_name("x", [f"schedule.milestones={v}"], ["schedule.milestones"]) for v in ("[.5,.8]", "[.5/.8]")
    )
    assert listed != other and listed.startswith("x-milestones=_.5_.8_-")


@given(st.lists(st.text(alphabet="abc123.-,[]{}'/@ =~", min_size=1, max_size=30), min_size=2, max_size=6, unique=True))
def test_different_values_give_different_legal_names(values: list[str]) -> None:
    names = [job_name("d4", [f"model.x={value}"], ["model.x"]) for value in values]
    assert len(set(names)) == len(names)
    for name in names:
        check_name("run", name)


def test_no_two_jobs_of_a_grid_share_a_name() -> None:
    depths, rates, rows = (2, 4, 6), (0.01, 0.1, 1e-05), (1, 16)
    names = {
        job_name("x", [f"model.depth={d}", f"optim.matrix_lr={r}", f"train.device_batch_size={n}"], KEYS)
        for d, r, n in product(depths, rates, rows)
    }
    assert len(names) == 18


KEYS = ["model.depth", "optim.matrix_lr", "train.device_batch_size"]


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "", " ", "../x", "a\\b", "sft@5", ".hidden", "-m", "a\nb", "x" * 201]
)
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="run="):
        check_name("run", name)


@pytest.mark.parametrize("name", ["d20", "a=b-c", "lr=0.02,0.03", "ein Lauf", "über", "2024-01-01", "a" * 200])
def test_ordinary_names_pass(name: str) -> None:
    check_name("run", name)
