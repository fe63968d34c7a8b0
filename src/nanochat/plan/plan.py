"""RunConfig + Facts -> Plan: the one place where numbers of a run are derived.

The Recipe is what the run is; its flat form is hashed and compared when a run is resumed. The Placement is
where it runs. Every derived number is accompanied by the rule that gave it.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from nanochat.config.data import ShardsConfig
from nanochat.config.fields import Role
from nanochat.config.optim import MuonAdamWConfig, MuonModernConfig
from nanochat.config.root import RunConfig, Stage
from nanochat.config.validate import flatten
from nanochat.plan.batch import Batch, default_lanes, derive_batch
from nanochat.plan.dims import ModelDims, ParamCounts, changed_fields, count_params, derive_dims, flops_per_token
from nanochat.plan.facts import Facts
from nanochat.plan.horizon import derive_steps
from nanochat.plan.memory import predict
from nanochat.plan.memory_rules import Misfit, Recompute, choose_recompute, how_trained, memory_rules, misfit
from nanochat.plan.model_rules import model_rules
from nanochat.plan.rates import LATER_ROLES, scale_rates
from nanochat.plan.rule import Rule
from nanochat.plan.schedules import warmup_length
from nanochat.plan.shards import Shards, check_auto, training_shards

# Identity fields whose meaning is in the derived numbers: asking for the same thing in other words is no change.
# persona and identity are what stage=identity writes; others read the file, whose content is in the data's fingerprint.
_RESOLVED = (
    *("train.", "model.", "tokenizer.", "init_from", "data.lanes", "data.num_shards", "persona.", "identity."),
    *("optim.scalar_lr", "optim.smear_lr"),  # in the rates of a network that has what they are for
)
_USUAL = {
    "embedding_lr": (0.1, 0.5),
    "unembedding_lr": (0.001, 0.01),
    "matrix_lr": (0.01, 0.05),
}
_MOST_DECAY = 0.1  # of a matrix in one step; a run that is long enough to have learnt something keeps far below


@dataclass(frozen=True)
class Recipe:
    """What the run is. `asked` holds the identity fields that no derived number covers.

    `shards` is how many training files of the corpus are read, None: all that there are.
    """

    stage: str
    dims: ModelDims
    params: ParamCounts
    flops_per_token: int
    rows: int
    batch_tokens: int
    steps: int
    tokens: int
    lanes: int
    shards: int | None
    lrs: dict[str, float]
    weight_decay: float
    seed: int
    init_from: str | None
    init_mark: str | None
    manifest: dict[str, Any]
    tokenizer: str | None
    asked: dict[str, Any]
    init_optimizer: bool = False

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value of all that makes the identity of the run."""
        # What came later counts from where it is on, so that older runs stay what they are.
        body = asdict(self) | {"dims": changed_fields(self.dims), "params": changed_fields(self.params)}
        body["data.num_shards"] = body.pop("shards")
        if body.pop("init_optimizer"):
            body["train.init_optimizer"] = True
        nested = {"dims": "model.", "params": "params.", "lrs": "lr.", "manifest": "data.files.", "asked": ""}
        flat = {k: v for k, v in body.items() if k not in nested}
        for name, prefix in nested.items():
            flat.update({prefix + key: value for key, value in body[name].items()})
        return flat

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the identity."""
        return hashlib.sha256(json.dumps(self.flat(), sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Placement:
    """Where and in what pieces the run is computed; `memory` is the predicted peak of a GPU in bytes."""

    device: str
    dtype: str
    world_size: int
    device_rows: int
    accumulation: int
    compile: bool
    activation_checkpointing: bool
    recompute_cheap: bool
    memory: int
    num_threads: int | None


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know before it starts."""

    recipe: Recipe
    placement: Placement
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]
    misfit: Misfit | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {
            "recipe": self.recipe.flat(),
            "recipe_hash": self.recipe.hash,
            "placement": asdict(self.placement),
            "rules": [[r.name, r.value, r.rule] for r in self.rules],
            "warnings": list(self.warnings),
        }


def make_plan(config: RunConfig, facts: Facts) -> Plan:
    """The plan of a training stage. Pure: same arguments, same plan. Raises ConfigError for impossible sizes."""
    check_auto(config)
    dims = facts.dims if facts.dims is not None else derive_dims(config.model, facts.vocab_size, facts.bos_id)
    batch = derive_batch(config, dims, facts)
    steps, steps_rule = derive_steps(config, dims, batch, facts)
    shards = training_shards(config.data, steps * batch.tokens)
    lanes = config.data.lanes if config.data.lanes is not None else default_lanes(batch.rows)
    rates = scale_rates(config, dims, batch)
    recipe = Recipe(
        stage=str(config.stage),
        dims=dims,
        params=count_params(dims),
        flops_per_token=flops_per_token(dims),
        rows=batch.rows,
        batch_tokens=batch.tokens,
        steps=steps,
        tokens=steps * batch.tokens,
        lanes=lanes,
        shards=shards.number,
        lrs=rates.lrs,
        weight_decay=rates.weight_decay,
        seed=config.seed,
        init_from=facts.init_from,
        init_mark=facts.init_mark,
        manifest=dict(facts.manifest),
        tokenizer=facts.tokenizer,
        asked=_asked(config, rates.lrs),
        init_optimizer=config.train.init_optimizer,
    )
    rules = (
        *model_rules(config.model, facts, dims, recipe.params, recipe.flops_per_token),
        *_run_rules(recipe, batch, steps_rule, facts),
        *_shard_rules(config, shards),
        *rates.rules,
    )
    lean = how_trained(config, facts, batch.device_rows, batch.accumulation > 1)
    chosen = choose_recompute(config, dims, lean, facts)
    per_rank = -(-batch.rows // facts.world_size)
    rules = (*rules, chosen.rule, *memory_rules(dims, chosen.how, lean, facts, per_rank))
    placement = _placement(config, facts, batch, chosen, predict(dims, chosen.how).peak)
    tight = misfit(dims, chosen.how, facts, per_rank)
    return Plan(recipe, placement, rules, tuple(_warnings(config, recipe, facts)), tight)


def _asked(config: RunConfig, roles: Collection[str]) -> dict[str, Any]:
    """The identity fields that are in no derived number. Settings of a role that the network lacks are of no run."""
    flat = flatten(config, Role.identity)
    unread = tuple(f"optim.{role}." for role in LATER_ROLES if role not in roles)
    left_out = (*_RESOLVED, *unread)
    return {key: value for key, value in flat.items() if not key.startswith(left_out) and key not in ("stage", "seed")}


def _placement(config: RunConfig, facts: Facts, batch: Batch, chosen: Recompute, memory: int) -> Placement:
    return Placement(
        device=facts.device,
        dtype=facts.dtype,
        world_size=facts.world_size,
        device_rows=batch.device_rows,
        accumulation=batch.accumulation,
        compile=facts.compile,
        activation_checkpointing=config.runtime.activation_checkpointing,
        recompute_cheap=chosen.cheap_here,
        memory=memory,
        num_threads=config.runtime.num_threads,
    )


def _run_rules(recipe: Recipe, batch: Batch, steps_rule: str, facts: Facts) -> list[Rule]:
    rules = [
        Rule("rows a step", batch.rows, batch.rule),
        Rule("tokens a step", batch.tokens, "rows * context"),
        Rule("steps", recipe.steps, steps_rule),
        Rule("tokens", recipe.tokens, "steps * tokens a step"),
        Rule("tokens per parameter", float(f"{recipe.tokens / recipe.params.total:.3g}"), "tokens / parameters"),
        Rule("training FLOPs", float(recipe.tokens * recipe.flops_per_token), "tokens * FLOPs per token"),
        Rule("rows a micro-batch", batch.device_rows, batch.device_rule),
        Rule("micro-batches a step", batch.accumulation, f"rows a step / (micro-batch * {facts.world_size} ranks), up"),
        Rule("lanes", recipe.lanes, "data.lanes, else the largest power of two up to 64 that divides the rows"),
    ]
    if facts.data_rows:
        passes, rule = recipe.steps * batch.rows / facts.data_rows, f"steps * rows a step / {facts.data_rows:,} rows"
        rules.append(Rule("passes over the data", round(passes, 3), f"{rule} ({facts.data_source})"))
    elif facts.data_tokens:
        passes, rule = recipe.tokens / facts.data_tokens, f"tokens / {facts.data_tokens:,}"
        rules.append(Rule("passes over the data", round(passes, 3), f"{rule} ({facts.data_source})"))
    return rules


def _shard_rules(config: RunConfig, shards: Shards) -> list[Rule]:
    """Of a corpus that comes in shards: how many are fetched, and the one for validation beside them."""
    return [Rule("training shards", shards.number, shards.rule)] if isinstance(config.data, ShardsConfig) else []


def _warnings(config: RunConfig, recipe: Recipe, facts: Facts) -> list[str]:
    found = []
    optim = config.optim
    if isinstance(optim, MuonAdamWConfig | MuonModernConfig):
        for name, (low, high) in _USUAL.items():
            value = getattr(optim, name)
            if not low <= value <= high:
                found.append(f"optim.{name}={value:g} is outside the usual range {low:g} to {high:g}")
    warmup = warmup_length(config.schedule, recipe.steps)
    if warmup > recipe.steps:
        found.append(f"the rates rise for {warmup:,} steps (schedule.warmup_steps), and the run has {recipe.steps:,}")
    taken = recipe.lrs["matrix"] * recipe.weight_decay
    if isinstance(optim, MuonModernConfig) and taken > _MOST_DECAY:
        found.append(
            f"optim.weight_decay={optim.weight_decay:g} comes to {recipe.weight_decay:.3g} on so short a horizon, "
            f"which takes {taken:.0%} of the matrices away in each step; such a run learns better with "
            f"optim.weight_decay=0"
        )
    if optim.grad_clip and not 0.5 <= optim.grad_clip <= 2:
        found.append(f"optim.grad_clip={optim.grad_clip:g} is outside the usual range 0.5 to 2 (0 turns it off)")
    if facts.data_tokens and recipe.stage == Stage.base and recipe.tokens > 4 * facts.data_tokens:
        found.append(
            f"the run reads its {facts.data_tokens:,} training tokens {recipe.tokens / facts.data_tokens:.1f} times; "
            f"beyond about 4 passes more data helps more than more steps"
        )
    return found
