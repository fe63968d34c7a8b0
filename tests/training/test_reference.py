"""Twenty steps of `nanochat stage=base` against training written anew from its description (support/plain_training.py).

Notable: the run is the real one, from overrides to metrics.jsonl; the reference is given its first weights and its
batches, and nothing else. Rows are longer than a short window; key/value heads are shared; a step is three rows in
micro-batches of two; warm-up, warm-down, both ends of the momentum and steps on either side of the gradient's bound lie
within the twenty steps.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from plain_training import Asked, PlainTrainer, Step, step_loss
from torch import Tensor
from workshop import Workshop, history

from nanochat.config.objective import ObjectiveConfig, ObjectiveName
from nanochat.data.batches import MicroBatch, StepBatch
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims
from nanochat.stages import training_stage
from nanochat.training.objectives import build_objective

STEPS = 20
OLD = Asked(
    modern=False,
    depth=3,
    aspect_ratio=16,
    head_dim=12,
    gqa_ratio=2,
    length=64,
    vocab=300,
    rows=3,
    ratio=0.03755,  # 20.5 steps, so 20
    warmup_steps=4,
    warmdown_ratio=0.4,
    final=0.1,
    momentum_warmup=9,
    grad_clip=1.0,
    weight_decay=0.1,
    scaled=False,
)
NEW = replace(OLD, modern=True, depth=5, aspect_ratio=9, length=144, ratio=0.0623, scaled=True)
ASKED = {
    "gpt": OLD,
    "modern": NEW,
    "full rates": replace(NEW, scaled=False),
    "fresh": replace(NEW, warmup_steps=40, momentum_warmup=400, rates_times=0.05, scaled=False),
}


@dataclass
class Watched:
    """What the reference is given of a run, the first weights and every batch, and what it is compared with."""

    model: GPT
    first: dict[str, Tensor]
    batches: list[StepBatch]
    metrics: list[dict[str, Any]]

    @property
    def steps(self) -> list[Step]:
        return [[(micro.inputs_BT, micro.targets_BT) for micro in batch.micro_batches] for batch in self.batches]

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.metrics if name in row]


def overrides(asked: Asked) -> list[str]:
    own = [f"optim.weight_decay={asked.weight_decay}"]
    if asked.modern:
        own = [f"optim.batch_lr_scaling={str(asked.scaled).lower()}", "train.param_count=scaling"]
    return [
        *(f"model={'modern' if asked.modern else 'gpt'}", f"optim={'muon_modern' if asked.modern else 'muon_adamw'}"),
        *(f"model.{key}={getattr(asked, key)}" for key in ("depth", "aspect_ratio", "head_dim", "gqa_ratio")),
        f"model.max_seq_len={asked.length}",
        f"train.total_batch_size={asked.batch}",
        "train.device_batch_size=2",
        "train.num_iterations=null",
        f"train.target_param_data_ratio={asked.ratio}",
        f"train.init_lr_frac={asked.rates_times}",
        f"schedule.warmup_steps={asked.warmup_steps}",
        f"schedule.warmdown_ratio={asked.warmdown_ratio}",
        f"schedule.final_lr_frac={asked.final}",
        f"optim.momentum.warmup_steps={asked.momentum_warmup}",
        f"optim.grad_clip={asked.grad_clip}",
        "optim.ns_dtype=float32",
        *("eval.every=-1", "eval.sample_every=-1", "eval.core_every=-1", "dry_run=true"),
        *own,
    ]


@torch.no_grad()
def leave_zero(model: GPT) -> None:
    """Small numbers where a fresh network has zeros.

    As long as all blocks add nothing, the last norm hides what the residual scalars and backout do: their gradients are
    rounding alone, of which AdamW, with its eps of 1e-10, makes steps of full size. So no two programs agree there, but
    where a long warm-up makes these first steps small.
    """
    generator = torch.Generator().manual_seed(11)
    for p in model.parameters():
        if not p.any():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.02)


def watch(workshop: Workshop, name: str, asked: Asked, *extra: str) -> Watched:
    """Trains for real and looks on."""
    seen: list[Watched] = []

    def build_parts(*arguments: Any, **keywords: Any) -> Any:
        model, parts = build(*arguments, **keywords)
        if asked.modern and asked.warmup_steps < STEPS:
            leave_zero(model)
        watched = Watched(model, {name: p.detach().clone() for name, p in model.named_parameters()}, [], [])
        seen.append(watched)
        take = parts.source.next_step

        def next_step(*args: Any, **kwargs: Any) -> StepBatch | None:
            batch: StepBatch | None = take(*args, **kwargs)
            watched.batches += [batch] if batch is not None else []
            return batch

        parts.source.next_step = next_step
        return model, parts

    build = training_stage.build_parts
    with patch.object(training_stage, "build_parts", build_parts):
        run = workshop.train("base", f"run={name}", *overrides(asked), *extra)
    seen[0].metrics = history(run)
    return seen[0]


@pytest.fixture(scope="module")
def watched(workshop: Workshop) -> Callable[[str], Watched]:
    """The runs of ASKED, each trained once."""
    made: dict[str, Watched] = {}

    def get(name: str) -> Watched:
        if name not in made:
            made[name] = watch(workshop, f"reference {len(made)}".replace(" ", "-"), ASKED[name])
        return made[name]

    return get


@pytest.mark.parametrize("name", ["gpt", "modern", pytest.param("full rates", marks=pytest.mark.slow)])
def test_twenty_steps(name: str, watched: Callable[[str], Watched]) -> None:
    run, asked = watched(name), ASKED[name]
    plain = PlainTrainer(run.first, asked)
    plain.train(run.steps)
    assert plain.total == len(run.batches) == STEPS
    assert run.column("train/loss") == pytest.approx(plain.losses, rel=0, abs=1e-5)
    assert run.column("train/grad_norm") == pytest.approx(plain.norms, rel=1e-4)
    assert min(plain.norms) < asked.grad_clip < max(plain.norms), "some steps are clipped, some are not"
    assert plain.losses[-1] < plain.losses[0] - 0.5, "it learns enough for mistakes to show"
    # A weight decays, or not, by the sign of its update; where that is rounding, single ones differ by one decay.
    bound = 2e-2 if asked.modern else 1e-4
    for name, p in run.model.named_parameters():
        moved = plain.w[name].detach() - run.first[name]
        assert float((p - plain.w[name]).detach().norm()) < bound * float(moved.norm()), name


@pytest.mark.slow
def test_a_fresh_modern_network(watched: Callable[[str], Watched]) -> None:
    """From the weights that a run begins with, under the usual warm-ups and low rates: see `leave_zero`."""
    run = watched("fresh")
    plain = PlainTrainer(run.first, ASKED["fresh"])
    plain.train(run.steps)
    assert not run.first["blocks.0.attn.o_proj.weight"].any()
    assert len(run.batches) == STEPS and plain.losses[-1] < plain.losses[0] - 0.1
    assert run.column("train/loss") == pytest.approx(plain.losses, rel=0, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_the_batches(name: str, watched: Callable[[str], Watched]) -> None:
    """Three rows a step, two micro-batches of two; each target is the next input, but for the row that fills up."""
    run, asked = watched(name), ASKED[name]
    for batch in run.batches:
        assert [tuple(micro.inputs_BT.shape) for micro in batch.micro_batches] == [(2, asked.length)] * 2
        inputs, targets = (torch.cat(parts) for parts in zip(*_pairs(batch), strict=True))
        real = (targets != -1).any(dim=1)
        assert int(real.sum()) == asked.rows and batch.weight == asked.batch
        assert torch.equal(targets[real][:, :-1], inputs[real][:, 1:]) and bool((targets[real] >= 0).all())


def _pairs(batch: StepBatch) -> Step:
    return [(micro.inputs_BT, micro.targets_BT) for micro in batch.micro_batches]


def dims_of(asked: Asked) -> ModelDims:
    """The same network for build_model; what modern adds is written out here, apart from conf/model/modern.yaml."""
    added: dict[str, Any] = {
        "vocab_multiple": 64,
        "qk_scale": 1.2,
        "window_pattern": "SSSL",
        "init": "modern",
        **dict.fromkeys(("value_embeds", "residual_scalars", "smear", "backout"), True),
    }
    return ModelDims(
        n_layer=asked.depth,
        n_embd=asked.width,
        n_head=asked.heads,
        n_kv_head=asked.heads // asked.gqa_ratio,
        head_dim=asked.head_dim,
        vocab_size=asked.vocab,
        seq_len=asked.length,
        rope_base=100_000.0 if asked.modern else 10_000.0,
        rope_dtype="float32",
        norm_eps=1e-6,
        logit_softcap=15.0,
        **(added if asked.modern else {}),
    )


@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_gradients_far_from_the_first_weights(name: str) -> None:
    """Where no part is near doing nothing, as all are at first: the loss and every gradient, some targets left out."""
    asked, generator = ASKED[name], torch.Generator().manual_seed(5)
    model = build_model(dims_of(asked), "cpu", "float32", 0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / (p.shape[-1] ** 0.5 if p.ndim == 2 else 2))
    inputs, targets = (torch.randint(asked.vocab, (2, asked.length), generator=generator) for _ in range(2))
    targets[0, asked.length // 2 :] = -1
    loss, weight = build_objective(ObjectiveConfig(name=ObjectiveName.next_token))(model, MicroBatch(inputs, targets))
    (loss / weight).backward()
    plain = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    expected = step_loss(plain, [(inputs, targets)], asked)
    expected.backward()
    assert loss.item() / int(weight) == pytest.approx(expected.item(), rel=1e-6)
    size = max(float(p.grad.norm()) for p in plain.values() if p.grad is not None)
    for name, p in model.named_parameters():
        assert p.grad is not None and plain[name].grad is not None
        assert float((p.grad - plain[name].grad).norm()) <= 2e-5 * float(plain[name].grad.norm()) + 1e-6 * size, name


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["gpt", "modern"])
def test_compiled_equals_eager(name: str, backend: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `runtime.compile=true` compiles, through two backends; inductor makes kernels of its own."""
    asked = replace(ASKED[name], depth={"gpt": 3, "modern": 2}[name])  # fewer layers compile sooner
    eager = watch(workshop, f"eager-{backend}-{name}", asked, "train.num_iterations=6")
    if backend == "inductor" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        pytest.skip("torch compiles for a CPU with a C++ compiler, and there is none")
    plain, made = torch.compile, []

    def with_backend(*arguments: Any, **keywords: Any) -> Any:
        made.append(arguments)
        return plain(*arguments, **keywords | {"backend": backend})

    monkeypatch.setattr(torch, "compile", with_backend)
    torch.compiler.reset()
    run = watch(workshop, f"{backend}-{name}", asked, "train.num_iterations=6", "runtime.compile=true")
    assert made, "something was compiled"
    assert all(torch.equal(run.first[key], eager.first[key]) for key in eager.first)
    assert run.column("train/loss") == pytest.approx(eager.column("train/loss"), rel=0, abs=1e-5)
