"""Tokens from disk are the tokens; a file is whole, made once, or made again, and a broken disk costs no run."""

import errno
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_stand_ins import ByteTokenizer, bytes_tokenizer

from nanochat.config.data import Packing
from nanochat.data import token_cache
from nanochat.data.corpus import FileDocuments
from nanochat.data.documents import EveryNth, TextList
from nanochat.data.encoding import DocEncoder
from nanochat.data.source import Source
from nanochat.data.token_cache import TokenCache
from nanochat.data.tokenized import CorpusTokens

TEXTS = [f"document {i} " + "wörd " * (i * 37 % 60) for i in range(50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of two files, with a blank document in each."""
    made = tmp_path / "corpus"
    made.mkdir()
    for name, part in (("a", [*TEXTS[:30], " "]), ("b", ["", *TEXTS[30:]])):
        pq.write_table(pa.table({"text": part}), made / f"{name}.parquet", row_group_size=7)
    return made


class Run:
    """Documents of `folder` through a cache below `folder.parent`; what was said, and what was encoded."""

    def __init__(self, folder: Path, name: str = "bytes", wide: bool = False, paths: list[Path] | None = None) -> None:
        self.tokenizer = ByteTokenizer(name)
        self.tokenizer.vocab_size = 1 << 17 if wide else 257
        self.said: list[str] = []
        self.cache = TokenCache(folder.parent / "tokens", f"{name}{'0' * 64}", self.said.append)
        self.documents = FileDocuments(paths or sorted(folder.glob("*.parquet")), folder)
        self.docs = CorpusTokens(self.documents, self.tokenizer, stored=self.cache)

    def read(self) -> list[list[int]]:
        return [tokens.ids.tolist() for tokens in self.docs.get_many(range(len(self.docs)))]


def plain(folder: Path) -> list[list[int]]:
    docs = CorpusTokens(FileDocuments(sorted(folder.glob("*.parquet")), folder), ByteTokenizer())
    return [docs.get(i).ids.tolist() for i in range(len(docs))]


def files(folder: Path) -> list[Path]:
    return sorted((folder.parent / "tokens").rglob("*.tokens"))


@pytest.mark.parametrize("wide", [False, True])
def test_tokens_are_those_of_the_text(folder: Path, wide: bool) -> None:
    first, second = Run(folder, wide=wide), Run(folder, wide=wide)
    assert first.read() == second.read() == plain(folder)
    assert second.tokenizer.calls == 0 and second.said == []
    assert second.docs.get(1).ids.dtype == (np.uint32 if wide else np.uint16)
    assert len(files(folder)) == len(first.said) == 2
    assert [path.suffix for path in files(folder)[0].parent.iterdir()].count(".partial") == 0


@pytest.mark.parametrize("packing", [Packing.stream, Packing.bestfit])
def test_rows_are_those_without_it(folder: Path, packing: Packing) -> None:
    def source(stored: TokenCache | None) -> Source:
        documents = FileDocuments(sorted(folder.glob("*.parquet")), folder)
        return Source(CorpusTokens(documents, ByteTokenizer(), 1, stored), packing, 32, 6, 4, 4, 256)

    cached, text = source(Run(folder).cache), source(None)
    for _ in range(30):
        one, two = cached.next_step(), text.next_step()
        for a, b in zip(one.micro_batches, two.micro_batches, strict=True):
            assert a.inputs_BT.equal(b.inputs_BT) and a.targets_BT.equal(b.targets_BT)
        assert (one.weight, one.epoch, one.row_ids) == (two.weight, two.epoch, two.row_ids)
    assert cached.state_dict() == text.state_dict()


def test_both_splits_of_one_file_share_its_tokens(folder: Path) -> None:
    run = Run(folder, paths=[folder / "a.parquet"])
    whole = plain(folder)
    for others in (True, False):
        part = EveryNth(run.documents, 5, others)
        docs = CorpusTokens(part, run.tokenizer, stored=run.cache)
        chosen = [i for i in range(31) if (i % 5 != 4) == others]
        assert [docs.get(i).ids.tolist() for i in range(len(docs))] == [whole[i] for i in chosen]
    assert len(files(folder)) == 1 and run.tokenizer.calls == 30


def test_a_list_of_texts_has_a_file_too(tmp_path: Path) -> None:
    tokenizer, said = ByteTokenizer(), []  # type: ignore[var-annotated]
    for _ in range(2):
        texts = TextList(TEXTS, "texts", {"texts": {"sha256": "x"}})
        docs = CorpusTokens(texts, tokenizer, stored=TokenCache(tmp_path, "t", said.append))
        assert docs.get(3).ids.tolist() == [256, *TEXTS[3].encode()]
    assert tokenizer.calls == len(TEXTS) and len(said) == 1


def test_other_text_and_other_tokenizers_have_other_files(folder: Path) -> None:
    Run(folder).read()
    Run(folder, "other").read()
    assert len(files(folder)) == 4
    pq.write_table(pa.table({"text": ["changed"] * 31}), folder / "a.parquet")
    assert Run(folder).read()[0] == [256, *b"changed"]
    assert len(files(folder)) == 5


def test_a_file_more_tokenises_that_file_only(folder: Path) -> None:
    Run(folder, paths=[folder / "a.parquet"]).read()
    grown = Run(folder)
    grown.read()
    assert grown.tokenizer.calls == 20


def _flip(content: bytearray) -> None:
    content[40] ^= 1


def _cut(content: bytearray) -> None:
    del content[-10:]


def _empty(content: bytearray) -> None:
    content.clear()


@pytest.mark.parametrize("damage", [_flip, _cut, _empty])
def test_a_damaged_file_is_made_again_and_that_is_said(folder: Path, damage: Callable[[bytearray], None]) -> None:
    Run(folder).read()
    path = files(folder)[0]
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    again = Run(folder)
    assert again.read() == plain(folder)
    assert sum("is made again" in text and path.name in text for text in again.said) == 1
    assert Run(folder).read() == plain(folder) and 0 < again.tokenizer.calls < 51


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    Run(folder).read()
    path = files(folder)[0]
    path.rename(path.with_name(path.name + ".12345678.partial"))
    assert Run(folder).read() == plain(folder)
    assert not list(path.parent.glob("*.partial"))


def test_a_full_disk_is_said_once_and_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_cache, "_write", full)
    run = Run(folder)
    assert run.read() == plain(folder) == run.read()
    assert len(run.said) == 1 and "No space left on device" in run.said[0] and "data.token_cache" in run.said[0]
    assert not list((folder.parent / "tokens").rglob("*.partial")) and not files(folder)


def test_a_place_that_is_no_folder_is_said(folder: Path) -> None:
    (folder.parent / "tokens").write_text("in the way")
    run = Run(folder)
    assert run.read() == plain(folder)
    assert len(run.said) == 1


def test_files_are_opened_again_after_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "OPEN_FILES", 0)
    paths = []
    for i in range(8):
        paths.append(folder / f"c{i}.parquet")
        pq.write_table(pa.table({"text": [f"{i}"]}), paths[-1])
    run = Run(folder, paths=paths)
    for _ in range(2):
        assert run.read() == [[256, *f"{i}".encode()] for i in range(8)]
    assert run.tokenizer.calls == 8


def _tokenise(folder: Path, answers: Any) -> None:
    said: list[str] = []
    documents = FileDocuments(sorted(folder.glob("*.parquet")), folder)
    tokenizer = bytes_tokenizer()
    docs = CorpusTokens(documents, tokenizer, stored=TokenCache(folder.parent / "tokens", "t", said.append))
    answers.put((len(said), sum(len(docs.get(i).ids) for i in range(len(docs)))))
    answers.put((len(said), 0))


def test_several_processes_make_a_file_once(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_tokenise, args=(folder, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in range(8)]
    for process in processes:
        process.join(20)
    assert sum(said for said, tokens in found if not tokens) == 2
    assert len({tokens for _, tokens in found if tokens}) == 1
    assert len(files(folder)) == 2


def test_threads_give_what_one_gives(folder: Path) -> None:
    texts = list(FileDocuments(sorted(folder.glob("*.parquet")), folder))
    one, many = DocEncoder(ByteTokenizer()), DocEncoder(ByteTokenizer(), workers=3)
    for count in (0, 1, 7, 8, len(texts)):
        assert [a.tolist() for a in one.encode(texts[:count])] == [b.tolist() for b in many.encode(texts[:count])]


def test_the_same_bytes_read_in_another_way_are_other_tokens(tmp_path: Path) -> None:
    """A line of jsonl that was renamed to .txt is one document as before, and another one."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "one"}\n')
    assert len(Run(folder, paths=[folder / "a.jsonl"]).read()[0]) == 4
    (folder / "a.jsonl").rename(folder / "a.txt")
    assert len(Run(folder, paths=[folder / "a.txt"]).read()[0]) == 16
