"""Order, repeats and weights of mixtures: which conversation comes when, and how often."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_data

from nanochat.config.data import Order, WeightBy
from nanochat.errors import ConfigError
from nanochat.tasks.base import Task, chat
from nanochat.tasks.measures import Measure
from nanochat.tasks.mixture import Mixture, build_mixture
from nanochat.tasks.registry import TASKS
from nanochat.tasks.spec import TaskContext


class Numbered(Task):
    """Row i of `name`; `length` characters where given."""

    def __init__(self, name, rows, lengths=None):
        self.name, self.rows, self.lengths = name, rows, lengths

    @classmethod
    def from_spec(cls, spec, context):
        return cls(spec.key, spec.stop)

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        return chat(f"{self.name} {index}", "y" * self.lengths[index] if self.lengths else "yes")

    def evaluate(self, conversation, answer):
        return True


@pytest.fixture(autouse=True)
def numbered(monkeypatch):
    monkeypatch.setitem(TASKS, "numbered", Numbered)


def make(seed=42, order=Order.shuffled, **repeats):
    return Mixture({"a": Numbered("a", 5), "b": Numbered("b", 3), "c": Numbered("c", 1)}, repeats, seed, order)


def origins(mixture):
    return [mixture.origin(i) for i in range(len(mixture))]


def test_every_row_as_often_as_repeated():
    seen = Counter(origins(make(b=3)))
    expected = {("a", row): 1 for row in range(5)} | {("b", row): 3 for row in range(3)} | {("c", 0): 1}
    assert seen == expected


def test_origin_tells_where_a_conversation_is_from():
    mixture = make(c=4)
    for index in range(len(mixture)):
        name, row = mixture.origin(index)
        assert mixture[index]["messages"][0]["content"] == f"{name} {row}"


def test_order_is_shuffled_and_follows_the_seed():
    order = origins(make())
    assert order == origins(make())
    assert order != origins(make(seed=43))
    assert order != sorted(order)


def test_the_order_of_old_runs():
    """A run begun before there were weights must go on with the same conversations."""
    assert [name + str(row) for name, row in origins(make(b=2))] == OLD_ORDER
    assert make(b=2).fingerprint()["tasks"]["b"]["repeat"] == 2


# Written by the version before weights: Mixture({a: 5 rows, b: 3, c: 1}, {"b": 2}, 42).
OLD_ORDER = ["b2", "b0", "a2", "b0", "b1", "b1", "c0", "a3", "a4", "a0", "a1", "b2"]


def test_iteration_ends():
    assert len(list(make())) == 9


def test_tasks_one_after_the_other():
    shuffled, sorted_ = origins(make(b=2)), origins(make(b=2, order=Order.tasks))
    assert [name for name, _ in sorted_] == ["a"] * 5 + ["b"] * 6 + ["c"]
    for name in "abc":  # each shuffled in itself, as it was
        assert [o for o in sorted_ if o[0] == name] == [o for o in shuffled if o[0] == name]


def test_short_ones_first(context):
    lengths = {"a": [5, 900, 5, 70], "b": [70, 1, 2000]}
    tasks = {name: Numbered(name, len(of), of) for name, of in lengths.items()}
    mixture = Mixture(
        tasks, {"b": 2}, 42, Order.length, {name: Measure("x", len_of).of(t) for name, t in tasks.items()}
    )
    seen = [lengths[name][row] for name, row in origins(mixture)]
    assert seen == sorted(seen) and len(seen) == 10
    shuffled = origins(Mixture(tasks, {"b": 2}, 42))
    for tie in (5, 70):  # equal ones stay in the shuffled order
        assert [o for o in origins(mixture) if lengths[o[0]][o[1]] == tie] == [
            o for o in shuffled if lengths[o[0]][o[1]] == tie
        ]


def len_of(conversation):
    return len(conversation["messages"][1]["content"])


def test_length_counts_all_characters_of_a_conversation(context):
    mixture = build_mixture({"a": {"task": "spelling_bee", "stop": 40}}, context, order=Order.length)
    sizes = [sum(len(part) for part in texts(mixture[i])) for i in range(40)]
    assert sizes == sorted(sizes) and len(set(sizes)) > 5


def texts(conversation):
    for message in conversation["messages"]:
        content = message["content"]
        yield from [content] if isinstance(content, str) else [part["text"] for part in content]


def test_lengths_are_read_once(context, monkeypatch):
    specs = {"a": {"task": "numbered", "stop": 300}}
    first = origins(build_mixture(specs, context, order=Order.length))
    reads = []
    monkeypatch.setattr(Numbered, "__getitem__", lambda self, i: reads.append(i) or chat(f"{self.name} {i}", "yes"))
    assert origins(build_mixture(specs, context, order=Order.length)) == first
    assert len(reads) < 100  # a few, to see that the task is the same
    (kept,) = (context.base_dir / "cache" / "measures").iterdir()
    whole = kept.read_bytes()
    np.save(kept, np.arange(3))
    for broken in (kept.read_bytes(), whole[:-9], b""):
        kept.write_bytes(broken)
        assert origins(build_mixture(specs, context, order=Order.length)) == first
        assert kept.read_bytes() == whole
    assert len(reads) > 900


def test_fingerprint_follows_all_that_is_read():
    one = make().fingerprint()
    assert one == make().fingerprint()
    others = [make(seed=1), make(a=2), make(order=Order.tasks)]
    found = [one, *(mixture.fingerprint() for mixture in others)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_fingerprint_follows_weights_and_order_of_tasks(context):
    def fingerprint(order=Order.shuffled, **weights):
        specs = {name: {"task": "numbered", "stop": 50, "weight": w} for name, w in weights.items()}
        return build_mixture(specs, context, order=order).fingerprint()

    assert fingerprint(a=1, b=2) == fingerprint(a=2.0, b=4)
    assert fingerprint(a=1, b=2) != fingerprint(a=1, b=3)
    assert fingerprint(Order.tasks, a=1, b=1) != fingerprint(Order.tasks, b=1, a=1)


sizes = st.integers(1, 60)
weights = st.floats(0.01, 100).map(lambda w: round(w, 3))
tasks = st.dictionaries(st.sampled_from("abcdef"), st.tuples(sizes, st.integers(1, 4), weights), min_size=1)


def weighted(given_tasks, tmp, seed=42, **more):
    specs = {
        name: {"task": "numbered", "stop": size, "repeat": repeat, "weight": weight}
        for name, (size, repeat, weight) in given_tasks.items()
    }
    return build_mixture(specs, TaskContext(base_dir=tmp, seed=seed), **more)


@settings(max_examples=60, deadline=None)
@given(tasks, st.integers(0, 3))
def test_shares_of_rows(tmp_path_factory, given_tasks, seed):
    folder = tmp_path_factory.getbasetemp()
    try:
        mixture = weighted(given_tasks, folder, seed)
    except ConfigError as error:
        assert "not one row" in str(error)
        return
    seen = Counter(origins(mixture))
    counts = Counter(name for name, _ in origins(mixture))
    scale = min(size * repeat / weight for size, repeat, weight in given_tasks.values())
    for name, (size, repeat, weight) in given_tasks.items():
        assert counts[name] <= scale * weight + 1e-6 and counts[name] > scale * weight - 1 - 1e-6
        passes = [seen[name, row] for row in range(size)]
        assert max(passes) - min(passes) <= 1, "no row is read twice before all are read once"
        assert max(passes) <= repeat
    assert any(counts[name] == size * repeat for name, (size, repeat, _) in given_tasks.items()), "it could be larger"
    assert origins(mixture) == origins(weighted(given_tasks, folder, seed))


@settings(max_examples=60, deadline=None)
@given(tasks)
def test_shares_of_tokens(tmp_path_factory, given_tasks):
    def cost(conversation):
        return int(conversation["messages"][0]["content"].split()[1]) % 7  # every seventh row has none

    measure, folder = Measure("mod 7", cost), tmp_path_factory.getbasetemp()
    totals = {name: sum(row % 7 for row in range(size)) for name, (size, _, _) in given_tasks.items()}
    try:
        mixture = weighted(given_tasks, folder, weight_by=WeightBy.tokens, cost=measure)
    except ConfigError as error:
        assert ("none of its" in str(error)) == (0 in totals.values())
        return
    got = Counter()
    for name, row in origins(mixture):
        got[name] += row % 7
    scale = min(totals[name] * repeat / weight for name, (_, repeat, weight) in given_tasks.items())
    for name, (size, repeat, weight) in given_tasks.items():
        assert scale * weight - 6 - 1 - 1e-6 < got[name] <= scale * weight + 1e-6
        rows = Counter(row for task, row in origins(mixture) if task == name)
        assert max(rows.values()) <= repeat and max(rows.values()) - min(rows[r] for r in range(size)) <= 1


def test_weights_are_the_decimals_that_were_written(context):
    """0.3 / 0.1 is 2.9999999999999996 in floating point, which would lose a row."""
    mixture = weighted({"a": (10, 1, 0.1), "b": (90, 1, 0.3)}, context.base_dir)
    assert Counter(name for name, _ in origins(mixture)) == {"a": 10, "b": 30}


def test_the_partial_pass_follows_the_seed_and_not_the_start(context):
    rows = [
        {
            row
            for name, row in origins(weighted({"a": (100, 1, 1), "b": (40, 1, 1)}, context.base_dir, seed))
            if name == "a"
        }
        for seed in (1, 1, 2)
    ]
    assert rows[0] == rows[1] != rows[2]
    assert len(rows[0]) == 40 and max(rows[0]) > 60


def test_all_tasks_have_weights_or_none(context):
    specs = {
        "x": {"task": "numbered", "stop": 3, "weight": 2},
        "y": {"task": "numbered", "stop": 3},
        "z": {"task": "numbered", "stop": 3},
    }
    with pytest.raises(
        ConfigError, match=r"data\.tasks\.x\.weight=2(\.0)?, but y, z have no weight.*data\.tasks\.y\.weight=1"
    ):
        build_mixture(specs, context)


def test_a_weight_too_small_for_a_row(context):
    with pytest.raises(ConfigError, match=r"data\.tasks\.b\.weight=0\.001 leaves it not one row.*'~data\.tasks\.b'"):
        weighted({"a": (10, 1, 1), "b": (10, 1, 0.001)}, context.base_dir)


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


def test_as_many_rows_as_the_guide_has(context):
    """848,000 conversations: built in a few seconds, 8 bytes each, any of them found at once."""
    begun = time.perf_counter()
    sizes = {"smoltalk": 460_000, "mmlu": 100_000, "gsm8k": 7_473, "identity": 1_000, "spell": 200_000, "bee": 80_000}
    mixture = Mixture({name: Numbered(name, size) for name, size in sizes.items()}, {"identity": 2}, order=Order.tasks)
    assert time.perf_counter() - begun < 10
    assert len(mixture) == 849_473 and mixture.order.itemsize == 8
    assert mixture.origin(0)[0] == "smoltalk" and mixture.origin(849_472)[0] == "bee"


def test_the_mixtures_of_the_guide(tmp_path):
    """Row counts from the real files (which have fewer rows of smoltalk and mmlu than the hub)."""
    from nanochat.config.load import compose_run

    context = TaskContext(base_dir=tmp_path, hub_root=str(shared_data("hub")), word_list="packaged")
    mid = compose_run(["stage=mid"]).config.data
    counts = {name: share.count for name, share in build_mixture(mid.tasks, context).shares.items()}
    assert counts == {
        "smoltalk": 10_994, "mmlu": 8_315, "gsm8k": 7_473, "identity": counts["identity"],
        "simple_spelling": 200_000, "spelling_bee": 80_000,
    }  # fmt: skip
    assert counts["identity"] % 2 == 0
    assert len(build_mixture(mid.val_tasks, context)) == 578 + 5200 + 420
    sft = compose_run(["stage=sft"]).config.data
    counts = {name: share.count for name, share in build_mixture(sft.tasks, context).shares.items()}
    assert sorted(counts.values()) == sorted([2251, 1119, 7473, 10_000, counts["identity"], 300, 300])
    assert len(build_mixture(sft.val_tasks, context)) == 578
