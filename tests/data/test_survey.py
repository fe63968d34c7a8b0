"""The count of a mixture, and its cache."""

from pathlib import Path

import pytest
from data_stand_ins import LONG, mixture

from nanochat.config.data import Packing, Supervise, TooLong
from nanochat.data.survey import Survey, survey
from nanochat.data.tokenized import MixtureTokens


def test_counts_and_rows() -> None:
    found = survey(mixture(LONG, Supervise.assistant, TooLong.truncate, 12))
    # conversation 0: 9 tokens, 3 of them supervised; 1: cut to 12, of which the first 6 are not; 2: nothing left
    assert found == Survey(3, kept=2, truncated=1, dropped=0, unsupervised=1, tokens=21, supervised=9)
    assert (found.rows(Packing.pad, 11), found.rows(Packing.stream, 4), found.rows(Packing.stream, 99)) == (2, 4, 1)
    dropped = survey(mixture(LONG, Supervise.all, TooLong.drop, 12))
    assert dropped == Survey(3, kept=1, truncated=0, dropped=2, unsupervised=0, tokens=9, supervised=9)


def test_cache_is_used_and_keyed_by_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), tmp_path)
    other = survey(mixture(LONG, Supervise.all, TooLong.truncate, 13), tmp_path)
    assert other.tokens == first.tokens + 2
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(MixtureTokens, "judge", None)
    assert survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), tmp_path) == first


def test_broken_cache_is_made_again(tmp_path: Path) -> None:
    first = survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-5])
    assert survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), tmp_path) == first
