"""No row is lost or seen twice: base, mid and sft sources, killed anywhere, continued by any number of ranks."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_stand_ins import bytes_tokenizer, chat, gather, read_step
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.config.data import Packing, Supervise, TooLong
from nanochat.data.corpus import FileDocuments
from nanochat.data.prefetch import Prefetch
from nanochat.data.source import Source
from nanochat.data.token_cache import TokenCache
from nanochat.data.tokenized import CorpusTokens, MixtureTokens, TokenDocs
from nanochat.errors import MismatchError
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.mixture import Mixture

WORLDS = (1, 2, 3, 5)
T = 40
ROWS, LANES, DEVICE_BATCH = 6, 4, 2
KINDS = {
    "base, stream": Packing.stream,
    "base, bestfit": Packing.bestfit,
    "base, few": Packing.stream,  # less text than a batch of rows
    "mid, stream": Packing.stream,
    "mid, bestfit": Packing.bestfit,
    "sft, pad": Packing.pad,
    "sft, bestfit_pad": Packing.bestfit_pad,
}


class Sums(Task):
    """Conversations of many lengths; some are longer than a row."""

    def __init__(self, rows: int, name: str) -> None:
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Conversation:
        return chat(f"{self.name} {index}", "is " + "so " * (index * 7 % 13))

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        return False


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of several row groups; blank, short and long documents."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for number, size in enumerate((23, 9, 30)):
        texts = [f"{number}.{i} " + "word " * rng.choice((0, 1, 3, 8, 30)) for i in range(size)]
        texts[4] = "  "
        pq.write_table(pa.table({"text": texts}), folder / f"{number}.parquet", row_group_size=5)
    (folder / "few").mkdir()
    pq.write_table(pa.table({"text": ["one", "", "two or three"]}), folder / "few" / "0.parquet")
    return folder


def open_docs(kind: str, corpus: Path, cached: bool = False, late: bool = False) -> TokenDocs:
    """The documents of a kind of source, opened afresh, as a new process does."""
    tokenizer = bytes_tokenizer()
    if kind.startswith("base"):
        folder = corpus / "few" if "few" in kind else corpus
        stored = TokenCache(corpus / "tokens", tokenizer.fingerprint(), lambda text: None) if cached else None
        files = FileDocuments(sorted(folder.glob("*.parquet")), folder, (lambda path: None) if late else None)
        return CorpusTokens(files, tokenizer, 1, stored)
    mixture = Mixture({"sums": Sums(31, "sum"), "more": Sums(12, "more")}, {"more": 2}, seed=3)
    if kind.startswith("mid"):
        return MixtureTokens(mixture, tokenizer, Supervise.all, TooLong.truncate, None)
    return MixtureTokens(mixture, tokenizer, Supervise.assistant, TooLong.drop, T + 1)


Attempt = tuple[int, int, int, bool, bool]  # steps, ranks, steps made ahead, token cache, files still arriving


def open_ranks(kind: str, corpus: Path, attempt: Attempt) -> list[Prefetch]:
    _, world, depth, cached, late = attempt
    sources = [
        Source(
            open_docs(kind, corpus, cached, late),
            KINDS[kind],
            T,
            ROWS,
            LANES,
            DEVICE_BATCH,
            256,
            rank=rank,
            world=world,
        )
        for rank in range(world)
    ]
    return [Prefetch(source, depth) for source in sources]


def one_by_one(kind: str, corpus: Path) -> Callable[[], Any]:
    """Steps of the run that is never interrupted, by one rank."""
    source = open_ranks(kind, corpus, (0, 1, 0, False, False))
    return lambda: read_step(source)  # type: ignore[arg-type]


ATTEMPTS = st.tuples(st.integers(0, 9), st.sampled_from(WORLDS), st.integers(0, 3), st.booleans(), st.booleans())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(st.lists(ATTEMPTS, min_size=3, max_size=4))
def test_killed_anywhere_by_any_number_of_ranks(kind: str, corpus: Path, attempts: list[Attempt]) -> None:
    """Killed at least twice; what was made after the last save is lost with the process, and made again."""
    uninterrupted = one_by_one(kind, corpus)
    state: dict[str, Any] | None = None
    seen: list[int] = []
    for attempt in attempts:
        ranks = open_ranks(kind, corpus, attempt)
        try:
            for source in ranks:
                if state is not None:
                    source.load_state_dict(state)
                source.__enter__()
            for _ in range(attempt[0]):
                weight, rows = read_step(ranks)  # type: ignore[arg-type]
                assert (weight, rows) == uninterrupted()
                seen += rows
            state = gather(ranks)  # type: ignore[arg-type]
            read_step(ranks)  # type: ignore[arg-type]
        finally:
            for source in ranks:
                source.stop()
    assert seen == list(range(len(seen)))


def test_a_state_of_the_middle_of_an_epoch_is_one(corpus: Path) -> None:
    """The attempts above stop in the first epoch and in later ones, between documents and inside them."""
    for kind in KINDS:
        step = one_by_one(kind, corpus)
        for _ in range(3):
            step()
        source = open_ranks(kind, corpus, (0, 1, 0, False, False))[0]
        epochs = [source.next_step().epoch for _ in range(27)]
        assert epochs == sorted(epochs) and epochs[0] % 1 and epochs[-1] > 1, kind


def test_with_the_same_pace_rows_and_documents_are_counted(corpus: Path) -> None:
    source = open_ranks("base, stream", corpus, (0, 1, 2, False, False))[0]
    with source:
        steps = [source.next_step() for _ in range(12)]
    assert [step.rows for step in steps] == [6 * n for n in range(1, 13)]
    assert steps[-1].documents == pytest.approx(steps[-1].epoch * 62, abs=1)


def changed(corpus: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    for path in corpus.glob("*.parquet"):
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    return folder


def _other_content(folder: Path) -> None:
    content = bytearray((folder / "1.parquet").read_bytes())
    place = content.index(b"word")
    content[place] ^= 1
    (folder / "1.parquet").write_bytes(content)


def _missing(folder: Path) -> None:
    (folder / "0.parquet").unlink()


def _added(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["more"]}), folder / "0a.parquet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_content, r"1\.parquet differs \(same size, other content\)"),
        (_missing, r"0\.parquet is missing"),
        (_added, r"0a\.parquet is new"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_changed_corpus_is_refused_by_the_name_of_the_file(
    corpus: Path, tmp_path: Path, change: Callable[[Path], None], said: str, late: bool
) -> None:
    before = open_ranks("base, stream", corpus, (0, 1, 0, False, late))[0]
    for _ in range(12):
        before.next_step()
    state = json.loads(json.dumps(before.state_dict()))
    folder = changed(corpus, tmp_path, change)
    with pytest.raises(MismatchError, match=said):
        open_ranks("base, stream", folder, (0, 1, 0, False, late))[0].load_state_dict(state)


def test_a_changed_task_is_refused_by_its_name(corpus: Path) -> None:
    state = open_ranks("sft, pad", corpus, (0, 1, 0, False, False))[0].state_dict()
    mixture = Mixture({"sums": Sums(30, "sum"), "more": Sums(12, "more")}, {"more": 2}, seed=3)
    docs = MixtureTokens(mixture, bytes_tokenizer(), Supervise.assistant, TooLong.drop, T + 1)
    source = Source(docs, Packing.pad, T, ROWS, LANES, DEVICE_BATCH, 256)
    with pytest.raises(MismatchError, match=r"sums differs \(rows 31 then, 30 now\)"):
        source.load_state_dict(state)
