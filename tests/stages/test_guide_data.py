"""The data chapter of the guide, row by row: what its reader edits code for is one override here.

Everything is asked for as on a command line, on the guide's own mixtures, from real files.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shared_data import shared_data
from workshop import Workshop, history, steps_saved

from nanochat.cluster.frozen import FrozenJob, freeze, thaw
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, MissingError
from nanochat.evals.chat import open_tasks
from nanochat.stages.job import Job
from nanochat.stages.sources import task_context
from nanochat.tasks.custom_json import packaged_identity
from nanochat.tasks.mixture import Mixture, build_mixture

IDENTITY = len(packaged_identity().splitlines())
OWN_TASKS = '''
"""Two tasks of a user: one to be written, one of letters."""
from nanochat.tasks.base import Conversation, Task, chat
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem

PAIRS = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo"), ("Peru", "Lima")]


class Capitals(Task):
    """Ask for capitals."""

    def __init__(self, n: int = 5) -> None:
        self.pairs = PAIRS[:n]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Conversation:
        country, city = self.pairs[index]
        return chat(f"What is the capital of {country}?", city)

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        return conversation["messages"][-1]["content"] in answer


class Choice(MultipleChoiceTask):
    """Choose the capital."""

    def __len__(self) -> int:
        return len(PAIRS)

    def problem(self, index: int) -> Problem:
        cities = [city for _, city in PAIRS]
        return Problem(f"The capital of {PAIRS[index][0]}?", cities, "ABCDE", "ABCDE"[index])
'''
CAPITALS = "+data.tasks.mine={_target_: own_tasks.Capitals, args: {n: 4}}"


@pytest.fixture
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """own_tasks.py in the current folder; the override that allows it."""
    (tmp_path / "own_tasks.py").write_text(OWN_TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "plugins=[own_tasks]"
    sys.modules.pop("own_tasks", None)


def asked(tmp_path: Path, stage: str, *overrides: str) -> Job:
    hub = f"hub_root={shared_data('hub')}"
    return Job(
        compose_run([f"stage={stage}", f"base_dir={tmp_path}", hub, "data.word_list=packaged", *overrides]).config
    )


def mixed(job: Job, split: str = "train") -> Mixture:
    data: Any = job.config.data
    return build_mixture(data.tasks if split == "train" else data.val_tasks, task_context(job))


def counts(mixture: Mixture) -> dict[str, int]:
    return dict(Counter(mixture.origin(i)[0] for i in range(len(mixture))))


def test_the_mid_mixture(tmp_path: Path) -> None:
    """Of smoltalk and mmlu the files at hand are shorter than the hub's 460,000 and 100,000 rows."""
    job = asked(tmp_path, "mid")
    assert counts(mixed(job)) == {
        "smoltalk": 10_994, "mmlu": 8_315, "gsm8k": 7_473, "identity": 2 * IDENTITY,
        "simple_spelling": 200_000, "spelling_bee": 80_000,
    }  # fmt: skip
    assert counts(mixed(job, "val")) == {"smoltalk": 578, "mmlu": 5_200, "gsm8k": 420}


def test_the_sft_mixture(tmp_path: Path) -> None:
    job = asked(tmp_path, "sft")
    assert counts(mixed(job)) == {
        "arc_easy": 2_251, "arc_challenge": 1_119, "gsm8k": 7_473, "smoltalk": 10_000, "identity": IDENTITY,
        "simple_spelling": 300, "spelling_bee": 300,
    }  # fmt: skip
    assert counts(mixed(job, "val")) == {"smoltalk": 578}
    assert set(open_tasks(job.config.eval.tasks, task_context(job))) == {"mmlu", "arc_easy"}
    assert (job.config.eval.metrics_every, job.config.eval.metrics_max_problems) == (200, 1024)


def test_a_math_specialist(tmp_path: Path) -> None:
    job = asked(tmp_path, "sft", "experiment=math")
    assert counts(mixed(job)) == {"gsm8k": 3 * 7_473, "smoltalk": 2_000}
    assert job.config.train.num_epochs == 3


def test_repeat_remove_and_limit(tmp_path: Path) -> None:
    few = ("~data.tasks.simple_spelling", "~data.tasks.spelling_bee", "~data.tasks.mmlu")
    edits = ("data.tasks.gsm8k.repeat=3", "data.tasks.smoltalk.stop=2000", "data.tasks.identity.repeat=1")
    found = counts(mixed(asked(tmp_path, "mid", *few, *edits)))
    assert found == {"smoltalk": 2_000, "gsm8k": 3 * 7_473, "identity": IDENTITY}
    every_third = mixed(asked(tmp_path, "sft", "data.tasks.gsm8k.start=10", "data.tasks.gsm8k.step=3"))
    assert counts(every_third)["gsm8k"] == len(range(10, 7_473, 3))


def test_an_own_file_and_several_identity_files(tmp_path: Path) -> None:
    files = {}
    for name, rows in (("mine", 3), ("who", 4), ("what", 2)):
        lines = [
            json.dumps({"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": str(i)}]})
            for i in range(rows)
        ]
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("\n".join(lines))
    job = asked(
        tmp_path,
        "sft",
        f"+data.tasks.mine={{task: custom_json, path: {files['mine']}, repeat: 2}}",
        f"data.tasks.identity.path={files['who']}",
        f"+data.tasks.more={{task: identity, path: {files['what']}, repeat: 3}}",
    )
    found = counts(mixed(job))
    assert (found["mine"], found["identity"], found["more"]) == (6, 4, 6)


def test_the_rules_of_a_file_of_conversations(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    turns = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}]
    path.write_text(json.dumps({"messages": turns[::-1]}) + "\n" + json.dumps({"messages": turns}) + "\n[]\n")
    job = asked(tmp_path, "sft", "data=mixture", f"+data.tasks.mine={{task: custom_json, path: {path}}}")
    with pytest.raises(
        ConfigError, match=r"bad.jsonl:2: message 1 has role 'assistant', expected 'user'. 2 lines are w"
    ):
        mixed(job)


def test_an_own_class_in_the_mixture_and_in_the_evaluation(tmp_path: Path, own_tasks: str) -> None:
    held_out = "+data.val_tasks.mine={_target_: own_tasks.Capitals, start: 3}"
    evals = (
        "+eval.tasks.mine={_target_: own_tasks.Choice, stop: 2}",
        "+eval.tasks.said={_target_: own_tasks.Capitals}",
    )
    job = asked(tmp_path, "sft", own_tasks, f"{CAPITALS[:-1]}, repeat: 2, stop: 3}}", held_out, *evals)
    assert counts(mixed(job))["mine"] == 6 and counts(mixed(job, "val"))["mine"] == 2
    tasks = open_tasks(job.config.eval.tasks, task_context(job))
    assert (tasks["mine"].kind, len(tasks["mine"]), tasks["said"].kind) == ("categorical", 2, "generative")
    assert tasks["mine"][1]["letters"] == list("ABCDE") and tasks["mine"].evaluate(tasks["mine"][1], "B")
    frozen = thaw(freeze(FrozenJob(job.config, ()), tmp_path / "frozen.yaml"))
    assert frozen.config.data == job.config.data
    assert mixed(Job(frozen.config)).fingerprint() == mixed(job).fingerprint()


def test_an_own_class_must_be_allowed(tmp_path: Path, own_tasks: str) -> None:
    with pytest.raises(ConfigError, match=r"data.tasks.mine._target_=own_tasks.Capitals.*plugins='\[own_tasks\]'"):
        mixed(asked(tmp_path, "sft", "data=mixture", CAPITALS))
    wrong = asked(tmp_path, "sft", "data=mixture", own_tasks, "+data.tasks.x={_target_: own_tasks.Problem}")
    with pytest.raises(ConfigError, match=r"own_tasks.Problem does not derive from nanochat.tasks.base.Task"):
        mixed(wrong)


def test_the_installed_command_finds_a_class_in_the_current_folder(tmp_path: Path, own_tasks: str) -> None:
    """Neither a console script nor a worker has the current folder on its path."""
    small = ["data.packing=pad", "train.total_batch_size=2048", f"base_dir={tmp_path}"]
    words = ["plan", "stage=mid", "data=mixture", CAPITALS, own_tasks, *small]
    command = [sys.executable, "-P", "-c", "from nanochat.cli.main import main; main()", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"steps +4 ", ended.stdout), ended.stdout


@pytest.fixture(params=["samples", "real"])
def hub(workshop: Workshop, mid_run: Path, request: pytest.FixtureRequest) -> str:
    """The packaged rows, and real ones where the machine has them."""
    return "hub_root=samples" if request.param == "samples" else f"hub_root={shared_data('hub')}"


def test_mid_trains_on_the_guides_mixture(workshop: Workshop, base_run: Path, hub: str) -> None:
    run = train(workshop, "mid", hub, f"run=guide-mid-{len(hub)}", "init_from=base/ref")
    assert steps_saved(run) == [2]
    assert [row["val/bpb"] for row in history(run) if "val/bpb" in row]


def test_sft_trains_on_the_guides_mixture_and_measures_letters(workshop: Workshop, hub: str) -> None:
    measured = ("eval.metrics_every=2", "eval.metrics_max_problems=4")
    run = train(
        workshop, "sft", hub, f"run=guide-sft-{len(hub)}", "init_from=mid/ref", *measured, "data.too_long=truncate"
    )
    assert steps_saved(run) == [2]
    (found,) = [row for row in history(run) if "eval/chat/mmlu" in row]
    assert {found["eval/chat/mmlu"], found["eval/chat/arc_easy"]} <= {0, 0.25, 0.5, 0.75, 1}


def test_all_six_chat_tasks_are_measured(workshop: Workshop, hub: str) -> None:
    only = (
        f"run=guide-eval-{len(hub)}",
        "init_from=mid/ref",
        "eval.metrics_max_problems=1",
        "eval.every=-1",
        "eval.sample_every=-1",
    )
    run = train(workshop, "eval", hub, *only)
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    tasks = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "spelling_bee")
    assert set(metrics) == {"eval/chatcore", *(f"eval/chat/{task}" for task in tasks)}


def test_an_own_class_is_trained_on(workshop: Workshop, mid_run: Path, own_tasks: str) -> None:
    evals = ("+eval.tasks.mine={_target_: own_tasks.Choice}", "eval.metrics_every=2", "eval=default")
    alone = ("data=mixture", CAPITALS, CAPITALS.replace("tasks", "val_tasks", 1), own_tasks, *evals)
    run = train(workshop, "sft", "hub_root=null", "run=own-class", "init_from=mid/ref", *alone)
    assert steps_saved(run) == [2] and "eval/chat/mine" in history(run)[-1]


def test_without_the_hub_one_error(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MissingError, match=r"data.tasks.smoltalk needs .*hub_root=FOLDER.*~data.tasks.smoltalk"):
        train(workshop, "mid", "hub_root=null", "run=no-hub", "init_from=base/ref")


def train(workshop: Workshop, stage: str, *extra: str) -> Path:
    """As Workshop.train, but on the stage's own mixture: two steps of 4 rows."""
    from nanochat.train import dispatch

    kept = [o for o in workshop.overrides(stage) if not o.startswith(("data", "~data", "eval=", "train."))]
    steps = ["train.num_iterations=2", "train.total_batch_size=256", "train.device_batch_size=4"]
    own = [*kept, "data.word_list=packaged", *(steps if stage != "eval" else ()), *extra]
    composed = compose_run(own)
    config = composed.config
    dispatch(replace(config, eval=replace(config.eval, sample_every=-1)), composed.overrides)
    return workshop.folder(stage, str(config.run))
