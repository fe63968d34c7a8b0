"""Hugging Face models from a folder: a small random GPT-2, and one whose logits are more than a linear head."""

import sys
from pathlib import Path

import pytest
import torch
from core_files import small_bundle
from hf_models import VOCAB, save
from slow_core import answers, read_tasks

from nanochat.errors import CorruptError, MissingError, NanochatError
from nanochat.evals.core import evaluate_core
from nanochat.evals.hf import HfScorer, check_folder, folder_mark

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.GPT2Config(vocab_size=VOCAB, n_positions=96, n_embd=24, n_layer=2, n_head=2)
    return save(tmp_path_factory.mktemp("gpt2"), transformers.GPT2LMHeadModel(config))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its logits are capped behind the head."""
    config = transformers.Gemma2Config(
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        max_position_embeddings=128,
        final_logit_softcapping=2.0,
    )
    return save(tmp_path_factory.mktemp("gemma"), transformers.Gemma2ForCausalLM(config))


@pytest.mark.parametrize("name", ["gpt2", "gemma"])
def test_equal_to_one_at_a_time(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    scorer, bundle = HfScorer(folder, "cpu", "float32"), small_bundle(tmp_path)
    assert scorer.longest == {"gpt2": 96, "gemma": 128}[name]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert scorer.bos == tokenizer.convert_tokens_to_ids("<|endoftext|>")

    def logits(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(torch.tensor([ids])).logits[0]
        return found

    result = evaluate_core(scorer, bundle, -1, batch_tokens=700)
    for score, raw in zip(result.scores, read_tasks(bundle.where), strict=True):
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        wanted = answers(raw, -1, encode, scorer.bos, logits, scorer.longest)
        assert [(None if a.gold is None else a.predicted, a.correct) for a in score.answers] == wanted


def test_the_head_is_asked_alone_where_it_is_all(gpt2: Path, gemma: Path) -> None:
    assert HfScorer(gpt2, "cpu", "float32")._head is not None
    assert HfScorer(gemma, "cpu", "float32")._head is None


def test_the_mark_follows_the_files(gpt2: Path) -> None:
    marks = folder_mark(gpt2)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(marks)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no such folder"):
        check_folder(tmp_path / "gpt2")
    with pytest.raises(MissingError, match="has no config.json"):
        check_folder(tmp_path)


def test_pickle_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CorruptError, match="weights in pickle"):
        HfScorer(tmp_path, "cpu", "float32")


def test_a_folder_that_cannot_be_loaded(gpt2: Path, tmp_path: Path) -> None:
    for path in gpt2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(NanochatError, match="cannot load it"):
        HfScorer(tmp_path, "cpu", "float32")


def test_transformers_is_not_installed(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NanochatError, match=r"pip install 'nanochat\[hf\]'"):
        HfScorer(gpt2, "cpu", "float32")
