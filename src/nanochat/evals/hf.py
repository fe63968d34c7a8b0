"""A causal model of Hugging Face's transformers, from a local folder, as CORE asks it.

Notable: nothing is fetched, no code of the folder is run, and weights come from safetensors alone. The head is asked
for the scored positions only, where the model is what it seems: activations, then one linear head. That is tried once
on a few tokens; a model that does more to its logits is asked for all of them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.data.manifest import file_fingerprint
from nanochat.errors import ConfigError, CorruptError, MissingError, NanochatError
from nanochat.evals.core_prompts import Problem
from nanochat.evals.core_scoring import judge, pad, scored_tokens

_LOGITS = 1 << 26  # numbers in a block of logits where all positions are asked for: 256 MB
_BOS = ("bos_token_id", "eos_token_id")  # models without a bos have learnt documents behind the end of others


def check_folder(folder: Path) -> None:
    """Raises MissingError or CorruptError where `folder` cannot hold a model; reads none of it."""
    key = f"eval.hf_model={folder}"
    if not folder.is_dir():
        raise MissingError(f"{key}: there is no such folder; give that of a Hugging Face model (config.json in it)")
    if not (folder / "config.json").is_file():
        raise MissingError(f"{key}: the folder has no config.json, so it is no model of Hugging Face's transformers")
    if not any(folder.glob("*.safetensors")):
        raise CorruptError(
            f"{key}: the folder has no *.safetensors; weights in pickle (.bin, .pt) can run code when they are read, "
            f"so they are not: save the model with safe_serialization=True where you trust it"
        )


def folder_mark(folder: Path) -> dict[str, str]:
    """Name -> hash of the files that decide what the model says."""
    kinds = ("*.json", "*.safetensors", "*.txt", "*.model")
    paths = sorted({path for kind in kinds for path in folder.glob(kind) if path.is_file()})
    return {path.name: str(file_fingerprint(path)["sha256"]) for path in paths}


def _transformers() -> Any:
    try:
        module = import_module("transformers")
    except ImportError as error:
        raise NanochatError(
            "eval.hf_model needs the package transformers, which is not installed: pip install 'nanochat[hf]'"
        ) from error
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    return module


class HfScorer:
    """Model and tokenizer of `folder`, in evaluation mode on `device`, computing in `dtype`."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        """Raises NanochatError where transformers is missing or cannot load the folder."""
        check_folder(folder)
        transformers = _transformers()
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
            model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True, **local)
        except Exception as error:  # whatever its many loaders raise, it is about the folder
            raise NanochatError(
                f"eval.hf_model={folder}: transformers {transformers.__version__} cannot load it: {error}"
            ) from error
        self.device = device
        self._model = model.to(device=torch.device(device), dtype=getattr(torch, dtype)).eval()
        self.bos, self.longest = self._find_bos(folder), self._find_longest()
        self._head = self._find_head()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without any specials."""
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def cost(self, problem: Problem) -> tuple[int, int]:
        """A row for each candidate."""
        return len(problem.candidates), max(len(c.tokens) for c in problem.candidates) - 1

    def scores(self, batch: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Loss and whether it is the likeliest, of each scored token."""
        candidates = [c for problem in batch for c in problem.candidates]
        spans = [slice(c.start - 1, len(c.tokens) - 1) for c in candidates]
        ids_BT = pad([c.tokens[:-1] for c in candidates], self.bos, self.device)
        targets_N = scored_tokens(batch, self.device)
        if self._head is not None:
            hidden_BTD = self._model.base_model(ids_BT).last_hidden_state
            return judge(torch.cat([row[at] for row, at in zip(hidden_BTD, spans, strict=True)]), targets_N, self._head)
        rows = max(1, _LOGITS // (ids_BT.shape[1] * self._model.get_output_embeddings().weight.shape[0]))
        found = []
        for ids, at in zip(torch.split(ids_BT, rows), _chunks(spans, rows), strict=True):
            logits = self._model(ids).logits
            found += [row[span] for row, span in zip(logits, at, strict=True)]
        return judge(torch.cat(found), targets_N, lambda logits: logits)

    def _find_bos(self, folder: Path) -> int:
        for name in _BOS:
            if (found := getattr(self._tokenizer, name, None)) is not None:
                return int(found)
        raise ConfigError(f"eval.hf_model={folder}: its tokenizer has neither a bos nor an eos token to begin with")

    def _find_longest(self) -> int:
        """From the config; without a bound there (a recurrent model) nothing is cut."""
        config = self._model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)

    @torch.inference_mode()
    def _find_head(self) -> Any:
        """The linear head, if it is all that stands between the activations and the logits; else None."""
        head = self._model.get_output_embeddings()
        vocab = self._model.config.get_text_config().vocab_size
        probe = (torch.arange(1, 9, device=self.device) * 7 % vocab)[None]
        try:
            parts = head(self._model.base_model(probe).last_hidden_state)
        except (AttributeError, TypeError):
            return None
        whole = self._model(probe).logits
        return head if parts.shape == whole.shape and torch.allclose(parts, whole, rtol=1e-3, atol=1e-3) else None


def _chunks(items: Sequence[slice], size: int) -> list[Sequence[slice]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
