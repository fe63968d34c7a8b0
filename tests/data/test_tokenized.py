"""Documents get a bos, conversations their mask; what is too long is cut or dropped."""

import numpy as np
import pytest
from data_stand_ins import LONG, ByteTokenizer, chat, mixture

from nanochat.config.data import Packing, Supervise, TooLong
from nanochat.data import tokenized
from nanochat.data.batches import collate
from nanochat.data.corpus import TextList
from nanochat.data.source import Source
from nanochat.data.survey import survey
from nanochat.data.tokenized import CorpusTokens, Fate
from nanochat.errors import ConfigError
from nanochat.tokenizer.bpe import SPECIALS

TEXTS = ["abc", "", " \n", "dé"]


def test_documents_have_bos_and_blank_ones_come_out_empty() -> None:
    docs = CorpusTokens(TextList(TEXTS, "texts", {}), ByteTokenizer())
    assert [docs.get(i).ids.tolist() for i in range(4)] == [[256, 97, 98, 99], [], [], [256, 100, 195, 169]]
    assert [tokens.ids.tolist() for tokens in docs.get_many([3, 0, 3])] == [
        [256, 100, 195, 169],
        [256, 97, 98, 99],
        [256, 100, 195, 169],
    ]


def test_documents_are_tokenised_once_while_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = ByteTokenizer()
    docs = CorpusTokens(TextList(TEXTS, "texts", {}), tokenizer)
    for _ in range(3):
        docs.get_many([0, 1, 2, 3])
    assert tokenizer.calls == 2  # the blank ones need none
    monkeypatch.setattr(tokenized, "CACHE_TOKENS", 1)
    small = CorpusTokens(TextList(["x"] * 100, "texts", {}), tokenizer)
    small.get_many(list(range(100)))
    assert len(small._cache) <= 4


def test_fingerprint_covers_tokenizer_and_documents() -> None:
    docs = CorpusTokens(TextList(TEXTS, "texts", {"a": {"size": 1}}), ByteTokenizer("mine"))
    assert docs.fingerprint() == {"tokenizer": "mine", "documents": 4, "parts": {"a": {"size": 1}}}


def test_golden_targets_of_every_part_type() -> None:
    """What the model is taught of a conversation with a tool call, down to the targets of the batch."""
    parts = [
        {"type": "text", "text": "x"},
        {"type": "python", "text": "1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "y"},
    ]
    docs = mixture([chat("h", parts)], Supervise.assistant, TooLong.truncate, 20)
    step = Source(docs, Packing.pad, 15, 1, 1, 1, pad_id=300).next_step()
    special = {name: 256 + i for i, name in enumerate(SPECIALS)}
    inputs = ["<|bos|>", "<|user_start|>", "h", "<|user_end|>", "<|assistant_start|>", "x", "<|python_start|>", "1"]
    inputs += ["<|python_end|>", "<|output_start|>", "2", "<|output_end|>", "y", "<|assistant_end|>"]
    targets = ["", "", "", "", "x", "<|python_start|>", "1", "<|python_end|>", "", "", "", "y", "<|assistant_end|>"]
    as_id = {**special, "h": 104, "x": 120, "y": 121, "1": 49, "2": 50, "": -1}
    assert step.micro_batches[0].inputs_BT.tolist() == [[as_id[token] for token in inputs] + [300]]
    assert step.micro_batches[0].targets_BT.tolist() == [[as_id[token] for token in targets] + [-1, -1]]
    assert step.weight == 6


def test_supervise_all_makes_every_token_a_target() -> None:
    docs = mixture([chat("hi", "yo")], Supervise.all, TooLong.truncate, None)
    assert docs.all_supervised
    assert docs.get(0).mask is None


def test_too_long_is_truncated() -> None:
    docs = mixture(LONG, Supervise.assistant, TooLong.truncate, 12)
    assert [docs.judge(i)[1] for i in range(3)] == [Fate.whole, Fate.truncated, Fate.unsupervised]
    assert [len(docs.get(i).ids) for i in range(3)] == [9, 12, 0]
    whole = mixture(LONG, Supervise.assistant, TooLong.truncate, None)
    assert docs.get(1).ids.tolist() == whole.get(1).ids[:12].tolist()
    assert np.array_equal(docs.get(1).mask, whole.get(1).mask[:12])  # type: ignore[index,arg-type]


def test_too_long_is_dropped() -> None:
    docs = mixture(LONG, Supervise.assistant, TooLong.drop, 12)
    assert [docs.judge(i)[1] for i in range(3)] == [Fate.whole, Fate.dropped, Fate.dropped]
    assert mixture(LONG, Supervise.assistant, TooLong.drop, 37).judge(1)[1] is Fate.whole


@pytest.mark.parametrize("too_long", list(TooLong))
@pytest.mark.parametrize("packing", list(Packing))
def test_all_dropped_is_an_error_that_ends(packing: Packing, too_long: TooLong) -> None:
    docs = mixture(LONG[2:] * 2, Supervise.assistant, too_long, 12)
    said = f"data.too_long={too_long}: none of the 2 conversations .* within 12 tokens; use .*model.max_seq_len"
    with pytest.raises(ConfigError, match=said):
        Source(docs, packing, 11, 2, 2, 2, pad_id=0).next_step()
    with pytest.raises(ConfigError, match=said):
        survey(docs, packing, 11)


def test_nothing_supervised_at_any_length_is_an_error() -> None:
    docs = mixture([{"messages": [{"role": "user", "content": "hi"}]}], Supervise.assistant, TooLong.truncate, None)
    with pytest.raises(ConfigError, match=r"data\.tasks: none of the 1 conversations"):
        survey(docs, Packing.pad, 11)


def test_no_row_is_padded_with_targets() -> None:
    docs = mixture(LONG[:2], Supervise.all, TooLong.truncate, 12)
    step = Source(docs, Packing.pad, 11, 2, 2, 2, pad_id=5).next_step()
    assert step.weight == 8 + 11
    assert collate([], 1, 11, 5).targets_BT.tolist() == [[-1] * 11]
