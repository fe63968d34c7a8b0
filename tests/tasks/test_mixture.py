from collections import Counter

import pytest

from nanochat.errors import ConfigError
from nanochat.tasks.base import Task, chat
from nanochat.tasks.mixture import Mixture, build_mixture


class Numbered(Task):
    def __init__(self, name, rows):
        self.name, self.rows = name, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        return chat(f"{self.name} {index}", "yes")

    def evaluate(self, conversation, answer):
        return True


def make(seed=42, **repeats):
    return Mixture({"a": Numbered("a", 5), "b": Numbered("b", 3), "c": Numbered("c", 1)}, repeats, seed)


def test_every_row_as_often_as_repeated():
    mixture = make(b=3)
    seen = Counter(mixture.origin(i) for i in range(len(mixture)))
    expected = {("a", row): 1 for row in range(5)} | {("b", row): 3 for row in range(3)} | {("c", 0): 1}
    assert seen == expected


def test_origin_tells_where_a_conversation_is_from():
    mixture = make(c=4)
    for index in range(len(mixture)):
        name, row = mixture.origin(index)
        assert mixture[index]["messages"][0]["content"] == f"{name} {row}"


def test_order_is_shuffled_and_follows_the_seed():
    order = [make().origin(i) for i in range(9)]
    assert order == [make().origin(i) for i in range(9)]
    assert order != [make(seed=43).origin(i) for i in range(9)]
    assert order != sorted(order)


def test_fingerprint_follows_tasks_repeats_and_seed():
    one = make().fingerprint()
    assert one == make().fingerprint()
    assert one != make(seed=1).fingerprint()
    assert one != make(a=2).fingerprint()


def test_iteration_ends():
    assert len(list(make())) == 9


def test_build_mixture(context):
    specs = {
        "bee": {"task": "spelling_bee", "stop": 30},
        "who": {"task": "identity", "stop": 2, "repeat": 3},
        "spell": {"task": "simple_spelling", "stop": 10, "split": "train"},
    }
    mixture = build_mixture(specs, context)
    assert len(mixture) == 30 + 6 + 10
    assert [note.split(":")[0] for note in mixture.notes] == ["words", "identity"]  # said once, not once a task
    assert build_mixture(specs, context).fingerprint() == mixture.fingerprint()


def test_errors_name_the_entry(context):
    with pytest.raises(ConfigError, match=r"data.val_tasks is empty"):
        build_mixture({}, context, key="data.val_tasks")
    with pytest.raises(ConfigError, match=r"data.tasks.bee.stpo .*did you mean stop"):
        build_mixture({"bee": {"task": "spelling_bee", "stpo": 3}}, context)
    with pytest.raises(ConfigError, match=r"data.tasks.bee.task=bees"):
        build_mixture({"bee": {"task": "bees"}}, context)
