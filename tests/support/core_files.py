"""A CORE bundle of three small tasks, and models whose answers are known."""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nanochat.evals.core_bundle import Bundle
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.raw_bytes import bytes_tokenizer

_ANIMALS = ("cat", "dog", "horse", "bee", "owl", "fox", "hen", "cow", "ant", "pig", "rat", "elk")
ROWS: dict[str, list[dict[str, Any]]] = {
    "say/sounds.jsonl": [
        {"query": f"The {name} says", "choices": ["moo", "meow and meow", f"{name}"], "gold": i % 3}
        for i, name in enumerate(_ANIMALS)
    ],
    "refer.jsonl": [
        {
            "context_options": [f"The {name} saw the dog and the {name}", f"The {name} saw the dog and the dog"],
            "continuation": "ran away.",
            "gold": i % 2,
        }
        for i, name in enumerate(_ANIMALS)
    ],
    "say/last.jsonl": [
        {"context": f" Once a {name} and a man met.\nThe man and the ", "continuation": name[: 1 + i % 2]}
        for i, name in enumerate(_ANIMALS)
    ],
}
CORE_YAML = """icl_tasks:
- label: sounds
  dataset_uri: say/sounds.jsonl
  num_fewshot: [4]
  icl_task_type: multiple_choice
  continuation_delimiter: "\\nAnswer: "
- label: refer
  dataset_uri: refer.jsonl
  num_fewshot: [0]
  icl_task_type: schema
- label: last
  dataset_uri: say/last.jsonl
  num_fewshot: [2, 5]
  icl_task_type: language_modeling
  has_categories: true
"""
META = (
    "Eval Task,Task Category,Random baseline,Description\n"
    'sounds,x,33.3,"two\nlines"\nrefer,x,50,\nlast,x,0,\nother,x,25,\n'
)
SOUNDS, LAST = "say/sounds.jsonl", "say/last.jsonl"


def files(**changes: str | None) -> dict[str, str]:
    """Name -> text of the bundle's files; `changes` by core_yaml, meta, sounds, refer, last."""
    names = {"core_yaml": "core.yaml", "meta": "eval_meta_data.csv"}
    names |= {"sounds": f"eval_data/{SOUNDS}", "refer": "eval_data/refer.jsonl", "last": f"eval_data/{LAST}"}
    found: dict[str, str] = {"core.yaml": CORE_YAML, "eval_meta_data.csv": META}
    for uri, rows in ROWS.items():
        found[f"eval_data/{uri}"] = "".join(json.dumps(row) + "\n" for row in rows)
    for key, text in changes.items():
        if text is None:
            del found[names[key]]
        else:
            found[names[key]] = text
    return found


def write_folder(folder: Path, content: Mapping[str, str] | None = None) -> Path:
    for name, text in (files() if content is None else content).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_zip(path: Path, content: Mapping[str, str] | None = None, top: str = "eval_bundle/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files() if content is None else content).items():
            archive.writestr(top + name, text)
    return path


def small_bundle(folder: Path) -> Bundle:
    return Bundle(write_folder(folder / "bundle"))


def tiny_gpt(vocab_size: int, seq_len: int = 256, **changes: Any) -> GPT:
    """One with numbers everywhere: a fresh one finds all tokens equally likely."""
    values: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_kv_head": 1, "head_dim": 16}
    values |= {"vocab_size": vocab_size, "seq_len": seq_len, "rope_base": 10_000.0, "rope_dtype": "float32"}
    values |= {"norm_eps": 1e-6, "logit_softcap": 15.0}
    model = build_model(ModelDims(**{**values, **changes}), "cpu", "float32", seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "wte.weight":
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[-1] ** -0.5)
    return model.eval()


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, so that texts are long and cheap."""
    return bytes_tokenizer()


def likes(model: GPT, token: int) -> GPT:
    """The same model, which now finds `token` the likeliest nearly everywhere."""
    with torch.no_grad():
        hidden = model.hidden(torch.arange(64)[None] % model.dims.vocab_size)[0]
        model.lm_head.weight[token] += hidden.mean(0) * 3.0
    return model


def logits_of(model: GPT) -> Callable[[Sequence[int]], torch.Tensor]:
    """ids -> (T, V), for the slow implementation."""

    @torch.inference_mode()
    def logits(ids: Sequence[int]) -> torch.Tensor:
        found: torch.Tensor = model(torch.tensor([list(ids)]))[0]
        return found

    return logits
