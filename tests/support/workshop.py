"""Small runs: the overrides that make every stage tiny, running them in this process, reading what they left."""

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nanochat.cluster.frozen import FrozenJob, freeze
from nanochat.config.load import Composed, compose_run
from nanochat.config.naming import run_dir, run_name
from nanochat.tracking.jsonl import read_jsonl

TRAINED = ("base", "mid", "sft")
_CLOCK = ("train/tokens_per_second", "train/step_seconds", "train/mfu", "train/data_wait")
_NOUNS = ("cat", "dog", "river", "stone", "letter", "window", "garden", "summer")
_VERBS = ("sees", "likes", "follows", "finds", "carries", "remembers")


@dataclass(frozen=True)
class Workshop:
    """A base_dir for tiny runs: one layer, 32 wide, 300 tokens of vocabulary, 64 of context."""

    base_dir: Path

    @classmethod
    def furnish(cls, folder: Path) -> "Workshop":
        """Writes the corpus and the conversations and trains the tokenizer."""
        import torch

        torch.set_num_threads(1)
        made = cls(folder)
        write_corpus(folder / "corpus")
        write_conversations(folder / "short.jsonl")
        made.train("tokenizer")
        return made

    @property
    def corpus(self) -> Path:
        return self.base_dir / "corpus"

    def overrides(self, stage: str, *extra: str) -> list[str]:
        """The command line of a tiny run of `stage`; `extra` wins."""
        common = [f"stage={stage}", f"base_dir={self.base_dir}", "tokenizer.name=tiny", "tokenizer.vocab_size=300"]
        if stage in ("tokenizer", "base"):
            common += ["data=text", f"data.root={self.corpus}"]
        if stage == "base":
            common += ["model.depth=1", "model.aspect_ratio=32", "model.head_dim=16", "model.max_seq_len=64"]
        if stage in TRAINED:
            common += ["runtime=cpu", "runtime.num_threads=1", "train.num_iterations=10", "train.save_every=3"]
            common += ["train.total_batch_size=512", "train.device_batch_size=3", "eval.every=2", "eval.tokens=256"]
            common += ["eval.steps=null", "eval.sample_every=2", "eval.sample_tokens=3", "eval.prompts=[The,a]"]
            common += ["eval.metrics_every=-1"]
        if stage in ("mid", "sft", "eval"):
            common += [f"data={'mid' if stage == 'mid' else 'sft'}_generated"]  # the guide's own need the hub
            common += [f"data.identity={self.base_dir / 'short.jsonl'}", "~data.tasks.spelling_bee"]
            common += ["~data.tasks.arithmetic", "data.tasks.simple_spelling.stop=30"]
            common += ["data.val_tasks.spelling_bee.stop=20", "data.val_tasks.simple_spelling.stop=20"]
            common += ["eval=generated" if stage == "eval" else "eval=default"]
        return [*common, *extra]

    def job(self, stage: str, *extra: str) -> FrozenJob:
        """The composed job. Composing takes longer than a tiny run, so runs that differ in their name share it."""
        names = [o.removeprefix("run=") for o in extra if o.startswith("run=")]
        composed = _composed(tuple(self.overrides(stage, *(o for o in extra if not o.startswith("run=")))))
        config = replace(composed.config, run=names[-1]) if names else composed.config
        return FrozenJob(config, (*composed.overrides, *(f"run={name}" for name in names)))

    def frozen(self, stage: str, *extra: str) -> list[str]:
        """Arguments for nanochat.train that run the same as `train` does."""
        job = self.job(stage, *extra)
        return ["--frozen", str(freeze(job, self.base_dir / "frozen" / f"{stage}-{run_name(job.config)}.yaml"))]

    def train(self, stage: str, *extra: str, plots: bool = False) -> Path:
        """Runs a stage in this process; returns the run's folder. The report's plots take most of a tiny run's time."""
        from nanochat.reporting.report import PLOTS
        from nanochat.train import dispatch

        job = self.job(stage, *extra)
        with patch("nanochat.reporting.report.PLOTS", PLOTS if plots else ()):
            dispatch(job.config, job.overrides)
        return run_dir(job.config)

    def folder(self, stage: str, run: str) -> Path:
        return self.base_dir / stage / run


@cache
def _composed(overrides: tuple[str, ...]) -> Composed:
    return compose_run(overrides)


def write_corpus(folder: Path, documents: int = 120) -> None:
    """Sentences of few words; the last file is for validation."""
    draw = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("a.jsonl", documents), ("b.jsonl", documents // 6)):
        texts = [" ".join(_sentence(draw) for _ in range(draw.randint(2, 9))) for _ in range(count)]
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sentence(draw: random.Random) -> str:
    return f"The {draw.choice(_NOUNS)} {draw.choice(_VERBS)} a {draw.choice(_NOUNS)}."


def write_conversations(path: Path, count: int = 30) -> None:
    """Short enough to fit a row of 64 tokens."""
    draw = random.Random(8)
    rows = []
    for number in range(count):
        messages = [("user", f"Say {number}"), ("assistant", f"{draw.choice(_NOUNS)} {number}")]
        rows.append(json.dumps({"messages": [{"role": role, "content": text} for role, text in messages]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def history(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl in file order, without what the clock decides."""
    rows = read_jsonl(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in _CLOCK} for row in rows]


def samples(run: Path) -> list[dict[str, Any]]:
    """samples.jsonl in file order."""
    return read_jsonl(run / "samples.jsonl")


def steps_saved(run: Path) -> list[int]:
    """The steps of the complete checkpoints."""
    from nanochat.checkpoint.find import list_checkpoints

    return [step for step, _ in list_checkpoints(run)]


def weights(run: Path, step: int) -> bytes:
    """model.safetensors of a checkpoint."""
    return (run / "checkpoints" / f"step_{step:06d}" / "model.safetensors").read_bytes()


def assert_same_run(run: Path, reference: Path) -> None:
    """The same metrics and samples, line by line and bit by bit, and the same weights in the end."""
    assert history(run) == history(reference)
    assert samples(run) == samples(reference)
    assert steps_saved(run) == steps_saved(reference)
    last = steps_saved(reference)[-1]
    assert weights(run, last) == weights(reference, last)
