"""The rows of a step do not depend on the number of ranks, nor on how often the run was killed."""

from typing import Any

import pytest
from data_stand_ins import PAD, MadeUpDocs, gather, make_source, read_step
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.config.data import Packing
from nanochat.data.source import Source, validation_batches
from nanochat.errors import ConfigError, MismatchError

WORLDS = (1, 2, 3, 5)


@st.composite
def corpora(draw: st.DrawFn) -> MadeUpDocs:
    """Documents from smaller than a batch to several epochs a test, empty, long and all-masked ones among them."""
    lengths = draw(st.lists(st.integers(0, 25), min_size=1, max_size=40).filter(lambda n: max(n) > 1))
    if draw(st.booleans()):
        return MadeUpDocs(lengths)
    return MadeUpDocs(lengths, [draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in lengths])


def ranks(docs: MadeUpDocs, packing: Packing, world: int, **changes: Any) -> list[Source]:
    return [make_source(docs, packing, rank=rank, world=world, **changes) for rank in range(world)]


@settings(max_examples=60, deadline=None)
@given(corpora(), st.sampled_from(list(Packing)), st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_rows_are_equal_for_every_world(
    docs: MadeUpDocs, packing: Packing, lanes: int, rows: int, device_batch: int
) -> None:
    shape = {"lanes": lanes, "rows_per_step": rows, "device_batch": device_batch}
    worlds = [ranks(docs, packing, world, **shape) for world in WORLDS]
    for step in range(5):
        weight, expected = read_step(worlds[0])
        assert list(expected) == list(range(step * rows, (step + 1) * rows))
        for sources in worlds[1:]:
            assert read_step(sources) == (weight, expected)


@settings(max_examples=60, deadline=None)
@given(
    corpora(),
    st.sampled_from(list(Packing)),
    st.integers(1, 7),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(WORLDS)), min_size=1, max_size=4),
)
def test_killed_anywhere_and_continued_by_any_world(
    docs: MadeUpDocs, packing: Packing, lanes: int, attempts: list[tuple[int, int]]
) -> None:
    through = [make_source(docs, packing, lanes=lanes)]
    state: dict[str, Any] | None = None
    for steps, world in attempts:
        sources = ranks(docs, packing, world, lanes=lanes)
        if state is not None:
            for source in sources:
                source.load_state_dict(state)
        for _ in range(steps):
            assert read_step(sources) == read_step(through)
        state = gather(sources)
        read_step(sources)  # work that is lost when the run is killed


@pytest.mark.parametrize("packing", list(Packing))
def test_lanes_are_dealt_round_robin(packing: Packing) -> None:
    """Global row g is the next row of lane g % L, and a lane's rows come from its own documents."""
    docs = MadeUpDocs([5] * 4000)  # the first epoch; after it lanes change documents (data/cursor.py)
    source = make_source(docs, packing, lanes=4, rows_per_step=6)
    owner = {int(token): i for i, tokens in enumerate(docs.docs) for token in tokens.ids[1:]}
    for _ in range(2):
        _, rows = read_step([source])
        for number, (inputs, _) in rows.items():
            assert {owner[token] % 4 for token in inputs if token in owner} == {number % 4}


def test_pad_gives_each_conversation_once_an_epoch_in_order() -> None:
    docs = MadeUpDocs([3] * 10)
    source = make_source(docs, Packing.pad, rows_per_step=5, lanes=3)
    firsts = [inputs[1] for _ in range(2) for inputs, _ in read_step([source])[1].values()]
    assert firsts == [int(tokens.ids[1]) for tokens in docs.docs]
    assert source.next_step().epoch == pytest.approx(1.5, abs=0.2)


def test_each_rank_reads_only_its_own_documents() -> None:
    docs = MadeUpDocs([9] * 64)
    for source in ranks(docs, Packing.stream, world=4, lanes=4):
        docs.requests.clear()
        source.next_step()
        assert len({index % 4 for index in docs.requests}) == 1


@pytest.mark.parametrize("packing", [Packing.stream, Packing.bestfit])
def test_what_is_read_ahead_is_about_what_is_needed(packing: Packing) -> None:
    """All lanes ask in one call, and the filling of their buffers does not count as their appetite."""
    docs = MadeUpDocs([5] * 9000)
    calls: list[int] = []
    real = docs.get_many
    docs.get_many = lambda indices: calls.append(len(indices)) or real(indices)  # type: ignore[func-returns-value, method-assign]
    source = make_source(docs, packing, lanes=4, rows_per_step=16)
    source.next_step()
    calls.clear()
    before = source.next_step().documents
    for _ in range(20):
        step = source.next_step()
    assert len(calls) <= 24  # 21 steps, and a lane that took more than the others at first
    assert sum(calls) < 1.4 * (step.documents - before) + 100


def test_more_ranks_than_rows_and_lanes() -> None:
    """Ranks with nothing to do still run as many micro-batches, of rows that weigh nothing."""
    docs = MadeUpDocs([9, 9, 9])
    sources = ranks(docs, Packing.stream, world=5, lanes=2, rows_per_step=3, device_batch=1)
    step = sources[4].next_step()
    assert (step.weight, len(step.micro_batches), step.row_ids, step.epoch) == (24.0, 2, [], 0.0)
    assert all((batch.targets_BT == -1).all() for batch in step.micro_batches)


def test_weight_of_all_masked_rows_is_zero() -> None:
    docs = MadeUpDocs([6, 6], [[0] * 6, [0] * 6])
    step = make_source(docs, Packing.pad).next_step()
    assert step.weight == 0.0
    assert len(step.micro_batches) == 3


def test_micro_batches_hold_at_most_device_batch_rows_of_equal_size() -> None:
    source = make_source(MadeUpDocs([50] * 4), rows_per_step=9, device_batch=4)
    shapes = [tuple(batch.inputs_BT.shape) for batch in source.next_step().micro_batches]
    assert shapes == [(3, 8)] * 3


def test_nothing_to_train_on_is_an_error_not_a_search() -> None:
    with pytest.raises(ConfigError, match="all are empty"):
        make_source(MadeUpDocs([0] * 100)).next_step()
    with pytest.raises(ConfigError, match="all are empty"):
        make_source(MadeUpDocs([]))


def test_changed_corpus_is_refused_by_name() -> None:
    docs = MadeUpDocs([5] * 8)
    state = make_source(docs).state_dict()
    docs.parts = {"a.txt": {"size": 41, "sha256": "x"}}
    with pytest.raises(MismatchError, match=r"a\.txt differs \(size 40 then, 41 now\)"):
        make_source(docs).load_state_dict(state)


@pytest.mark.parametrize(("key", "value"), [("seq_len", 16), ("lanes", 2), ("packing", Packing.bestfit)])
def test_changed_shape_is_refused_by_key(key: str, value: Any) -> None:
    docs = MadeUpDocs([5] * 8)
    state = gather([make_source(docs)])
    with pytest.raises(MismatchError, match=f"{key}={value}"):
        make_source(docs, **{"packing": Packing.stream, key: value}).load_state_dict(state)


def test_state_of_one_rank_is_no_state_of_the_run() -> None:
    docs = MadeUpDocs([5] * 8)
    state = make_source(docs, rank=0, world=2).state_dict()
    with pytest.raises(MismatchError, match="lacks lanes 1, 3"):
        make_source(docs).load_state_dict(state)


def test_another_number_of_rows_a_step_continues_at_the_same_row() -> None:
    docs = MadeUpDocs([20] * 12)
    long, short = make_source(docs, rows_per_step=6), make_source(docs, rows_per_step=3)
    read_step([long])
    short.load_state_dict(gather([long]))
    both = read_step([short])[1] | read_step([short])[1]
    assert both == read_step([long])[1]


def read_validation(docs: MadeUpDocs, packing: Packing, max_tokens: int, world: int, **changes: Any) -> list[str]:
    """Inputs and targets of all ranks' rows, as text, sorted."""
    rows = []
    for rank in range(world):
        for batch in validation_batches(docs, packing, 8, 3, max_tokens, PAD, rank=rank, world=world, **changes):
            assert len(batch.inputs_BT) <= 3
            rows += [str(pair) for pair in zip(batch.inputs_BT.tolist(), batch.targets_BT.tolist(), strict=True)]
    return sorted(rows)


@settings(max_examples=40, deadline=None)
@given(corpora(), st.sampled_from(list(Packing)), st.integers(1, 300))
def test_validation_is_the_same_every_time_and_for_every_world(
    docs: MadeUpDocs, packing: Packing, max_tokens: int
) -> None:
    expected = read_validation(docs, packing, max_tokens, world=1)
    assert 1 <= len(expected) <= -(-max_tokens // 8)
    for world in WORLDS:
        assert read_validation(docs, packing, max_tokens, world) == expected


def test_validation_is_at_most_one_pass() -> None:
    docs = MadeUpDocs([5] * 30)
    rows = read_validation(docs, Packing.pad, 10**9, world=1)
    assert len(set(rows)) == len(rows) == 30
    targets = [
        int(target)
        for batch in validation_batches(docs, Packing.stream, 8, 3, 10**9, PAD)
        for target in batch.targets_BT[batch.targets_BT != -1]
    ]
    text = [int(token) for tokens in docs.docs for token in tokens.ids[1:]]
    assert len(targets) > 0.8 * len(text)  # all but the first token of each row
    assert {target for target in targets if target != 7} <= set(text)


def test_validation_on_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="validation: made-up"):
        list(validation_batches(MadeUpDocs([0, 0]), Packing.stream, 8, 2, 100, PAD))
