"""The packaged rows: every data set has some in its own form, so that a shrunken run needs no network."""

from pathlib import Path

import pytest

from nanochat.tasks.hub import HubTask
from nanochat.tasks.hub_samples import sample_rows
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.mixture import build_mixture
from nanochat.tasks.registry import TASKS, build_task
from nanochat.tasks.spec import TaskContext, TaskSpec

HUB = {name: kind for name, kind in TASKS.items() if issubclass(kind, HubTask)}
SPLITS = [(name, subset, s) for name, kind in HUB.items() for subset, splits in kind.subsets.items() for s in splits]


@pytest.mark.parametrize(("name", "subset", "split"), SPLITS)
def test_every_split_has_samples(name: str, subset: str, split: str, tmp_path: Path) -> None:
    context = TaskContext(base_dir=tmp_path, hub_root="samples")
    single = len(HUB[name].subsets) == 1
    task = build_task(TaskSpec(task=name, subset=None if single else subset, split=split), context)
    for row in range(len(task)):
        conversation = task[row]
        final = conversation["messages"][-1]["content"]
        answer = final if isinstance(final, str) else "".join(part["text"] for part in final)
        assert answer.strip() and [m["role"] for m in conversation["messages"]][:2] == ["user", "assistant"]
        if name != "smoltalk":
            assert task.evaluate(conversation, answer)
    assert "samples" in task.notes[0]


def test_training_and_test_samples_differ() -> None:
    for name, kind in HUB.items():
        for subset, splits in kind.subsets.items():
            rows = [str(row) for split in splits for row in sample_rows(kind.dataset, subset, split)]
            assert len(rows) == len(set(rows)) >= len(splits), (name, subset)


def test_a_wrong_solution_fails(tmp_path: Path) -> None:
    task = build_task(TaskSpec(task="humaneval", split="test"), TaskContext(base_dir=tmp_path, hub_root="samples"))
    assert isinstance(task, HumanEval)
    assert not task.evaluate(task[0], "def double(x): return x\ndef count_vowels(t): return 0\ndef last(i): return 0")


def test_a_mixture_of_them_is_offline_and_has_a_fingerprint(tmp_path: Path) -> None:
    specs = {"talk": {"task": "smoltalk"}, "sums": {"task": "gsm8k", "subset": "main"}}
    mixture = build_mixture(specs, TaskContext(base_dir=tmp_path, hub_root="samples"))
    assert len(mixture) == 8 + 5 and "contents" in str(mixture.fingerprint())
