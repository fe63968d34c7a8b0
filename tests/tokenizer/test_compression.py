import socket

import pytest
import tiktoken

from nanochat.tokenizer import compression
from nanochat.tokenizer.compression import cache_folder, compare


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_offline_gives_our_column_and_reasons(tokenizer, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    report = compare(tokenizer, {"ascii": "the band restarting", "cjk": "中文中文", "nothing": ""})
    assert [row.domain for row in report.rows] == ["ascii", "cjk"]
    assert report.rows[0].ours == 19 / len(tokenizer.encode("the band restarting"))
    assert report.rows[1].num_bytes == 12
    assert all(row.gpt2 is None and row.cl100k is None for row in report.rows)
    assert "vocab.bpe" in report.skipped["gpt2"]
    assert "cl100k_base.tiktoken" in report.skipped["cl100k_base"]


def test_a_wrong_file_in_the_cache_is_not_used(tokenizer, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for files in compression.PUBLISHED.values():
        for url in files:
            name = compression.hashlib.sha1(url.encode()).hexdigest()
            (tmp_path / name).write_text("<html>not found</html>")
    report = compare(tokenizer, {"ascii": "the band"})
    assert all("sha256" in reason for reason in report.skipped.values())
    assert len(list(tmp_path.iterdir())) == 3  # tiktoken itself would have deleted them and downloaded


def test_present_encodings_fill_their_columns(tokenizer, monkeypatch):
    stand_in = tiktoken.Encoding(
        "stand-in", pat_str=r"(?s).", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(compression, "reason_to_skip", lambda name: None if name == "gpt2" else "absent")
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: stand_in)
    report = compare(tokenizer, {"ascii": "the band"})
    assert report.rows[0].gpt2 == 1.0
    assert report.rows[0].cl100k is None
    assert report.skipped == {"cl100k_base": "absent"}


def test_cache_folder_follows_tiktoken(tmp_path, monkeypatch):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert cache_folder() is None
    assert "switched off" in compression.reason_to_skip("gpt2")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR")
    assert cache_folder().name == "data-gym-cache"


def test_published_hashes_are_those_of_tiktoken():
    """The URLs and hashes are copied constants; tiktoken's own source must still hold them."""
    import inspect

    import tiktoken_ext.openai_public

    source = inspect.getsource(tiktoken_ext.openai_public)
    for files in compression.PUBLISHED.values():
        for url, sha256 in files.items():
            assert url in source
            assert sha256 in source
