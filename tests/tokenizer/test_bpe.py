import json
import subprocess
import sys

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.errors import CorruptError, MismatchError, MissingError
from nanochat.tokenizer.bpe import (
    FAST_PATTERN,
    MAX_BLANK_RUN,
    SPECIALS,
    SPLIT_PATTERN,
    TOKEN_BYTES_FILE,
    TOKENIZER_FILE,
    Tokenizer,
)

# text as users write it, and text that nobody would: any bytes, emoji, CJK, contractions, odd blanks
ANY_TEXT = st.one_of(
    st.text(max_size=80),
    st.binary(max_size=80).map(lambda data: data.decode("utf-8", errors="replace")),
    st.text(alphabet="中文日本語かな한국어。、", max_size=40),
    st.text(alphabet="😀👨‍👩‍👧🏽❤️🇫🇷", max_size=40),
    st.text(alphabet="'sStTlLveREſ \n\r\t\u3000\xa0\x85\u2028\x1c\x0bab12é\u0301<|>_", max_size=60),
)


@given(text=ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_ids_equal_those_of_tokenizers(learner, tokenizer, text):
    assert tokenizer.encode(text) == learner.encode(text).ids


@given(text=ANY_TEXT)
@settings(max_examples=1000, deadline=None)
def test_the_fast_pattern_splits_as_the_published_one(text):
    """In another engine, where the splits themselves can be seen."""
    assert regex.findall(FAST_PATTERN, text) == regex.findall(SPLIT_PATTERN, text)


@given(text=ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_the_fast_pattern_gives_the_ids_of_the_published_one(tokenizer, published, text):
    assert tokenizer.encode(text) == published.encode_ordinary(text)


@given(text=ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_decode_is_the_inverse_and_bytes_are_counted(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8")
    assert sum(tokenizer.token_bytes[token] for token in ids) == len(text.encode("utf-8"))


@given(data=st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_come_back_as_the_text_that_they_are(tokenizer, data):
    """Whatever bytes a file holds: as UTF-8 with replacements, and byte by byte as Latin-1."""
    for text in (data.decode("utf-8", errors="replace"), data.decode("latin-1")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode_bytes(ids) == text.encode("utf-8")
        assert sum(tokenizer.token_bytes[token] for token in ids) == len(text.encode("utf-8"))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_ids_have_bytes(tokenizer, data):
    """Ids in no order that text would give, specials among them: what a model may sample."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=60))
    raw = tokenizer.decode_bytes(ids)
    assert raw == b"".join(tokenizer.decode_bytes([token]) for token in ids)
    specials = sum(len(SPECIALS[token - tokenizer.bos]) for token in ids if token >= tokenizer.bos)
    assert len(raw) == sum(tokenizer.token_bytes[token] for token in ids) + specials
    assert tokenizer.decode(ids) == raw.decode("utf-8", errors="replace")


@given(
    unit=st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from([*SPECIALS, "<|", "|>", "\r\n", "\x00", "e\u0301"])
    ),
    count=st.integers(1, 3000),
    tail=ANY_TEXT,
)
@settings(max_examples=150, deadline=None)
def test_long_runs_of_anything_come_back(tokenizer, unit, count, tail):
    text = unit * count + tail
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8")
    assert all(token < tokenizer.bos for token in ids)
    assert tokenizer.encode_array(text).tolist() == ids


def test_token_bytes_of_every_id(tokenizer):
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size
    assert tokenizer.token_bytes[-len(SPECIALS) :] == [0] * len(SPECIALS)
    for token in range(tokenizer.vocab_size - len(SPECIALS)):  # a lone byte >= 0x80 counts 1, not the 3 of U+FFFD
        assert tokenizer.token_bytes[token] == len(tokenizer.decode_bytes([token]))


def test_specials_are_the_last_ids_in_order(tokenizer):
    first = tokenizer.vocab_size - len(SPECIALS)
    assert [tokenizer.special(name) for name in SPECIALS] == list(range(first, first + len(SPECIALS)))
    assert tokenizer.bos == tokenizer.special("<|bos|>") == first
    assert tokenizer.vocab_size == 600
    assert tokenizer.decode([tokenizer.bos]) == "<|bos|>"
    with pytest.raises(KeyError):
        tokenizer.special("<|eos|>")


@pytest.mark.parametrize("name", SPECIALS)
def test_specials_in_text_are_ordinary_text(tokenizer, name):
    ids = tokenizer.encode(f"say {name} twice {name}")
    assert max(ids) < tokenizer.bos
    assert tokenizer.decode(ids) == f"say {name} twice {name}"


def test_digits_are_split_in_pairs(tokenizer):
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("123451234512345")]
    assert all(len(piece) <= 2 for piece in pieces)


def test_batch_equals_one_by_one(tokenizer):
    texts = ["the band", "", "restarting 12 中文", "😀" * 50] * 5
    expected = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == expected
    assert tokenizer.encode_batch(texts, num_threads=3) == expected


@pytest.mark.parametrize("text", ["a" + " " * 1_000_000, "\n" * 700_000 + "b", "x" * 300_000])
def test_endless_runs_do_not_overflow_the_regex_engine(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_long_text_with_ordinary_blanks_is_not_cut(learner, tokenizer):
    text = "the band rests \n" * (MAX_BLANK_RUN // 10)
    assert tokenizer.encode(text) == learner.encode(text).ids


def test_half_a_character_decodes_to_a_replacement(tokenizer):
    byte_ids = [tokenizer.encode("\x7f")[0], *tokenizer.encode("ÿ")[:1]]
    assert "\ufffd" in tokenizer.decode(byte_ids)


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t", metadata={"chars": 5})
    loaded = Tokenizer.load(tmp_path / "t")
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode("restarting é 12345") == tokenizer.encode("restarting é 12345")
    assert loaded.vocab_size == tokenizer.vocab_size
    assert json.loads((tmp_path / "t" / TOKEN_BYTES_FILE).read_text()) == tokenizer.token_bytes
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == [TOKEN_BYTES_FILE, TOKENIZER_FILE]


def test_fingerprint_tells_tokenizers_apart(tokenizer):
    ranks = {bytes([byte]): byte for byte in range(256)}
    assert Tokenizer(ranks).fingerprint() != tokenizer.fingerprint()
    swapped = ranks | {b"a": 98, b"b": 97}
    assert Tokenizer(swapped).fingerprint() != Tokenizer(ranks).fingerprint()


def test_missing_tokenizer_names_the_command(tmp_path):
    with pytest.raises(MissingError, match="nanochat stage=tokenizer"):
        Tokenizer.load(tmp_path / "none")


def spoil(folder, change):
    path = folder / TOKENIZER_FILE
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda data: data["ranks"].pop(), CorruptError, "fingerprint"),
        (lambda data: data["ranks"].pop(0), CorruptError, "single bytes"),
        (lambda data: data["ranks"].append(data["ranks"][-1]), CorruptError, "twice"),
        (lambda data: data["ranks"].append("not base64!"), CorruptError, "base64"),
        (lambda data: data["ranks"].append(7), CorruptError, "base64"),
        (lambda data: data.pop("ranks"), CorruptError, "ranks"),
        (lambda data: data.update(pattern="x"), MismatchError, "pattern"),
        (lambda data: data["specials"].reverse(), MismatchError, "specials"),
    ],
)
def test_a_changed_file_is_refused(tokenizer, tmp_path, change, error, words):
    tokenizer.save(tmp_path)
    spoil(tmp_path, change)
    with pytest.raises(error, match=words):
        Tokenizer.load(tmp_path)


def test_a_cut_off_or_pickled_file_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / TOKENIZER_FILE
    path.write_text(path.read_text()[:1000])
    with pytest.raises(CorruptError, match="not JSON"):
        Tokenizer.load(tmp_path)
    path.write_bytes(b"\x80\x04\x95cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(CorruptError, match="not JSON"):
        Tokenizer.load(tmp_path)


def test_ids_with_gaps_are_refused():
    with pytest.raises(CorruptError, match="ids"):
        Tokenizer({bytes([byte]): byte + 1 for byte in range(256)})


def test_import_is_light():
    code = "import sys, nanochat.tokenizer.bpe, nanochat.tokenizer.chat, nanochat.tokenizer.train; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "datasets", "tokenizers", "numpy", "transformers"} & set(loaded)
