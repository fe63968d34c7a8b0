from pathlib import Path

import pytest
from victims import Hit, run
from workshop import Workshop

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, MismatchError
from nanochat.stages.job import Job
from nanochat.stages.tokenizer import cropped, run_tokenizer
from nanochat.tokenizer.bpe import Tokenizer


def test_cropped_counts_characters() -> None:
    assert list(cropped(["abcdef", "gh", "ijkl", "m"], 9, 4)) == ["abcd", "gh", "ijk"]  # type: ignore[arg-type]
    assert list(cropped(["ab"], 100, 4)) == ["ab"]  # type: ignore[arg-type]


def test_the_same_one_is_left_alone(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.train("tokenizer")
    assert "is complete; nothing to do" in capsys.readouterr().out


def test_another_one_is_refused_and_can_be_overwritten(workshop: Workshop) -> None:
    name = "tokenizer.name=mine"
    workshop.train("tokenizer", name, "tokenizer.vocab_size=290")
    with pytest.raises(MismatchError, match="tokenizer.vocab_size was 290, is 300.*overwrite=true"):
        workshop.train("tokenizer", name)
    workshop.train("tokenizer", name, "overwrite=true")
    assert Tokenizer.load(workshop.base_dir / "tokenizer" / "mine").vocab_size == 300


def test_a_dry_run_writes_nothing(workshop: Workshop) -> None:
    workshop.train("tokenizer", "tokenizer.name=dry", "dry_run=true")
    assert not (workshop.base_dir / "tokenizer" / "dry").exists()


@pytest.mark.parametrize(("overwrite", "after"), [(False, False), (False, True), (True, False)])
def test_killed_while_saving(overwrite: bool, after: bool, workshop: Workshop, tmp_path: Path) -> None:
    """What a kill leaves is neither taken for a tokenizer nor in the way of the next attempt."""
    name = f"tokenizer.name=killed{overwrite}{after}"
    folder = workshop.base_dir / "tokenizer" / f"killed{overwrite}{after}"
    if overwrite:
        workshop.train("tokenizer", name, "tokenizer.vocab_size=290")
    hit = Hit("nanochat.tokenizer.bpe:Tokenizer.save", 1, after=after)
    extra = ("overwrite=true",) if overwrite else ()
    code, output = run(workshop.frozen("tokenizer", name, *extra), [hit], tmp_path / "log")
    assert code == -9, output
    workshop.train("tokenizer", name)
    assert Tokenizer.load(folder).vocab_size == 300


def test_a_mixture_is_no_corpus(workshop: Workshop) -> None:
    with pytest.raises(ConfigError, match="stage=tokenizer reads a corpus"):
        run_tokenizer(Job(compose_run(["stage=tokenizer", f"base_dir={workshop.base_dir}", "data=mid"]).config))
