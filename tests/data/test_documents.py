"""Files are opened when a document of them is needed, in order; what is not known yet is None, and no change."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_stand_ins import ByteTokenizer, gather, read_step

from nanochat.config.data import Packing
from nanochat.data.corpus import FileDocuments
from nanochat.data.documents import EveryNth, TextList
from nanochat.data.source import Source, merge_states
from nanochat.data.tokenized import CorpusTokens
from nanochat.errors import MismatchError, MissingError

SIZES = (7, 5, 1, 9)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """22 documents in four files."""
    made = []
    for number, size in enumerate(SIZES):
        made.append(tmp_path / f"{number}.parquet")
        texts = [f"file {number} text {i} " + "word " * (i * 5 % 11) for i in range(size)]
        pq.write_table(pa.table({"text": texts}), made[-1], row_group_size=2)
    return made


class Arriving:
    """FileDocuments of files that arrive when they are waited for; `waited` are their names."""

    def __init__(self, paths: list[Path]) -> None:
        self.waited: list[str] = []
        self.there = len(paths)
        self.documents = FileDocuments(paths, paths[0].parent, self.wait)

    def wait(self, path: Path) -> None:
        if len(self.waited) == self.there:
            raise MissingError(f"{path.name} cannot be had")
        self.waited.append(path.name)


def make_source(documents: FileDocuments, rank: int = 0, world: int = 1, lanes: int = 2) -> Source:
    docs = CorpusTokens(documents, ByteTokenizer())
    return Source(docs, Packing.stream, 20, 2, lanes, 2, 256, rank=rank, world=world)


def test_files_are_waited_for_in_order_and_only_as_far_as_needed(paths: list[Path]) -> None:
    arriving = Arriving(paths)
    documents = arriving.documents
    assert arriving.waited == [] and documents.known_length() is None
    assert documents[3].startswith("file 0") and arriving.waited == ["0.parquet"]
    assert documents[11].startswith("file 1") and arriving.waited == ["0.parquet", "1.parquet"]
    assert documents.has(12) and len(arriving.waited) == 3
    assert documents.known_length() is None
    assert len(documents) == 22 == documents.known_length() and len(arriving.waited) == 4
    assert not documents.has(22)
    for index in (22, -1):
        with pytest.raises(IndexError):
            documents[index]


def test_iteration_opens_files_when_it_comes_to_them(paths: list[Path]) -> None:
    arriving = Arriving(paths)
    walk = iter(arriving.documents)
    texts = [next(walk) for _ in range(7)]
    assert arriving.waited == ["0.parquet"]
    texts += list(walk)
    assert texts == [arriving.documents[i] for i in range(22)] == list(FileDocuments(paths, paths[0].parent))


def test_training_begins_before_the_last_file_is_there(paths: list[Path]) -> None:
    """The rows of the first pass are those of the whole corpus; only its end asks for all files."""
    arriving = Arriving(paths)
    late, whole = make_source(arriving.documents), make_source(FileDocuments(paths, paths[0].parent))
    opened = []
    for _ in range(30):
        assert read_step([late]) == read_step([whole])
        opened.append(len(arriving.waited))
    assert opened[0] < 4 and opened == sorted(opened) and opened[-1] == 4


def test_a_file_that_never_comes_ends_the_run_at_its_first_document(paths: list[Path]) -> None:
    arriving = Arriving(paths)
    arriving.there = 2
    source = make_source(arriving.documents)
    read_step([source])
    with pytest.raises(MissingError, match=r"2\.parquet cannot be had"):
        for _ in range(30):
            read_step([source])


def test_epoch_rises_and_is_whole_at_the_end_of_a_pass(paths: list[Path]) -> None:
    """Each file counts the same, whatever is known of the others, so nothing learnt later lets it fall."""
    arriving = Arriving(paths)
    documents = arriving.documents
    assert documents.has(0)
    assert [documents.progress(p) for p in (0, 3.5, 7)] == [0, 1 / 8, 1 / 4]  # at 7 the next file is not open
    values = []
    for position in range(44):
        documents.has(position % 22)
        values.append(documents.progress(position))
    values += [documents.progress(p) for p in (44, 46)]
    assert values == sorted(values)
    assert values[22] == 1 and values[44] == 2
    fresh = FileDocuments(paths, paths[0].parent)
    assert [fresh.progress(p) for p in (0, 11, 22, 33)] == [0, 0.5, 1, 1.5]  # all are here: by documents


def test_fingerprint_of_unopened_files_is_none(paths: list[Path]) -> None:
    documents = Arriving(paths).documents
    assert documents.fingerprint() == dict.fromkeys(path.name for path in paths)
    documents.has(7)
    found = documents.fingerprint()
    assert [found[path.name] is None for path in paths] == [False, False, True, True]
    assert documents.fingerprint(["2.parquet"])["2.parquet"] is not None
    assert documents.fingerprint()["3.parquet"] is None


def test_a_resume_opens_what_the_checkpoint_knew_and_compares_it(paths: list[Path]) -> None:
    source = make_source(Arriving(paths).documents)
    read_step([source])
    state = gather([source])
    known = [name for name, part in state["fingerprint"]["parts"].items() if part]
    assert known == ["0.parquet", "1.parquet"] and state["fingerprint"]["documents"] is None
    table = pq.read_table(paths[3])
    pq.write_table(table.slice(1), paths[3])  # nobody has read it yet
    again = make_source(Arriving(paths).documents)
    again.load_state_dict(state)
    assert read_step([again]) == read_step([source])
    pq.write_table(pq.read_table(paths[0]).slice(1), paths[0])
    with pytest.raises(MismatchError, match=r"0\.parquet differs"):
        make_source(Arriving(paths).documents).load_state_dict(state)
    with pytest.raises(MismatchError, match=r"3\.parquet is missing"):
        make_source(FileDocuments(paths[:3], paths[0].parent)).load_state_dict(state)


def test_ranks_know_together_what_any_of_them_knows(paths: list[Path]) -> None:
    documents = [Arriving(paths).documents for _ in range(2)]
    documents[1].has(12)
    sources = [make_source(documents[rank], rank, 2) for rank in range(2)]
    merged = merge_states([source.state_dict() for source in sources])
    assert [part is not None for part in merged["fingerprint"]["parts"].values()] == [True, True, True, False]


def test_every_nth_is_located_in_the_whole() -> None:
    whole = TextList([str(i) for i in range(13)], "texts", {})
    for others in (True, False):
        part = EveryNth(whole, 4, others)
        assert [whole[part.locate(i)[1]] for i in range(len(part))] == list(part)
        assert part.has(len(part) - 1) and not part.has(len(part))
        assert part.known_length() == len(part) and part.progress(len(part)) == 1
