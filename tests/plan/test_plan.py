"""The plan as a whole: identity key by key, rates, rules, warnings."""

import json
from dataclasses import FrozenInstanceError, replace
from enum import Enum
from typing import Any, get_args

import pytest

from nanochat.config.fields import Role
from nanochat.config.keys import Field, all_fields
from nanochat.config.load import compose_run
from nanochat.config.root import RunConfig
from nanochat.config.validate import build_run_config, flatten, plain
from nanochat.plan.dims import ModelDims, derive_dims
from nanochat.plan.facts import Facts
from nanochat.plan.plan import Plan, make_plan

FACTS = Facts(vocab_size=1024, vocab_source="given", data_tokens=10**6, data_rows=5000, data_source="counted")
SMALL = ["model.depth=4", "train.num_iterations=100", "train.total_batch_size=16384"]
# One config for every schema that a group can hold.
ASKED: dict[str, list[str]] = {
    "base": SMALL,
    "text": [*SMALL, "data=text", "data.root=/x"],
    "shards": [*SMALL, "data=fineweb_edu"],
    "mid": [*SMALL, "stage=mid"],
    "adamw": [*SMALL, "optim=adamw"],
    "muon_modern": [*SMALL, "optim=muon_modern", "model=modern"],  # with every role that has settings of its own
    "z_loss": [*SMALL, "objective=z_loss"],
    "label_smoothing": [*SMALL, "objective=label_smoothing"],
    **{name: [*SMALL, f"schedule={name}"] for name in ("cosine", "step", "linear", "constant", "decay")},
}
# A legal other value where the general rule below gives none.
OTHER: dict[str, Any] = {
    "model.depth": 6,
    "model.head_dim": 64,
    "model.aspect_ratio": 128,
    "model.gqa_ratio": 2,
    "model.max_seq_len": 1024,
    "model.n_head": 4,
    "model.n_kv_head": 1,
    "model.n_embd": 512,
    "train.total_batch_size": 32768,
    "train.device_batch_size": 3,
    "schedule.milestones": [0.25, 0.75],
    "schedule.factors": [0.5, 0.25],
    "data.val_every": 7,
    "data.num_shards": 7,
    "eval.core_every": -1,
    "model.window_pattern": "SL",
    "model.vocab_multiple": 96,
}
# Identity that reaches the plan by another way than the config, and the way.
ELSEWHERE = {
    "stage": "another stage has another folder, and other data",
    "model.name": "the name of an option; every feature that it sets has its own key",
    "optim.scalar_lr": "in the rates of a network with residual scalars; see test_rates",
    "optim.smear_lr": "likewise, with smear or backout",
    "model.round_width": "changes nothing where the width is round; see test_width",
    "tokenizer.name": "Facts.tokenizer is the fingerprint of what it holds",
    "tokenizer.vocab_size": "Facts.vocab_size",
    "tokenizer.max_chars": "Facts.tokenizer",
    "tokenizer.doc_cap": "Facts.tokenizer",
    "init_from": "Facts.init_from and Facts.init_mark",
    "train.num_epochs": "a horizon that another one precedes; see test_what_decides_is_identity",
    "train.target_flops": "likewise",
    "train.target_param_data_ratio": "likewise",
    "train.param_count": "likewise",
    "train.target_examples_per_step": "the batch in tokens precedes it",
    "data.kind": "chosen with the option of data",
    "optim.name": "chosen with the option of optim",
    "schedule.name": "chosen with the option of schedule",
    "objective.name": "chosen with the option of objective",
}


@pytest.fixture(scope="module")
def configs() -> dict[str, RunConfig]:
    return {name: compose_run(overrides).config for name, overrides in ASKED.items()}


def other_value(found: Field, value: Any) -> Any:
    """A legal value that is not `value`."""
    if found.key in OTHER:
        return OTHER[found.key]
    kinds = [k for k in (found.hint, *get_args(found.hint)) if isinstance(k, type)]
    enums = [k for k in kinds if issubclass(k, Enum)]
    if enums:
        return next(str(m.value) for m in enums[0] if str(m.value) != str(value))
    if isinstance(value, bool) or (value is None and bool in kinds):
        return not value
    if isinstance(value, dict):
        return {**value, "another": {"task": "arithmetic"}}
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, str) or (value is None and str in kinds):
        return f"{value}x"
    if isinstance(value, int) or (value is None and int in kinds):
        return (value or 0) + 1
    return value / 2 if value else 0.125


def changed(config: RunConfig, key: str, value: Any) -> RunConfig:
    data: dict[str, Any] = json.loads(json.dumps(plain(config)))
    node = data
    *path, last = key.split(".")
    for word in path:
        node = node[word]
    node[last] = value
    return build_run_config(data)


def cases() -> list[tuple[str, Field]]:
    """Each field of each schema once, with a config that holds it."""
    found, seen = [], set()
    for name, overrides in ASKED.items():
        flat = flatten(compose_run(overrides).config)
        for each in all_fields():
            if each.key in flat and each.key not in seen:
                seen.add(each.key)
                found.append((name, each))
    return found


CASES = cases()


def test_no_field_is_left_out() -> None:
    assert {f.key for f in all_fields() if not f.is_group} == {f.key for _, f in CASES}
    assert set(ELSEWHERE) <= {f.key for _, f in CASES}


@pytest.mark.parametrize(("name", "found"), CASES, ids=[f.key for _, f in CASES])
def test_identity_changes_the_hash_and_nothing_else_does(
    configs: dict[str, RunConfig], name: str, found: Field
) -> None:
    config = configs[name]
    if found.key in ELSEWHERE or found.key == "eval.core_every":
        return
    if found.key.startswith(("persona.", "identity.")):  # of stage=identity; training reads the file that it makes
        return
    other = changed(config, found.key, other_value(found, flatten(config)[found.key]))
    assert flatten(other) != flatten(config)
    same = make_plan(other, FACTS).recipe.hash == make_plan(config, FACTS).recipe.hash
    assert same == (found.metadata["role"] != Role.identity)


@pytest.mark.parametrize("option", ["optim=adamw", "schedule=cosine", "objective=z_loss", "data=text"])
def test_another_option_is_another_run(configs: dict[str, RunConfig], option: str) -> None:
    root = ["data.root=/x"] if option == "data=text" else []
    other = compose_run([*SMALL, option, *root]).config
    assert make_plan(other, FACTS).recipe.hash != make_plan(configs["base"], FACTS).recipe.hash


def test_what_decides_is_identity(configs: dict[str, RunConfig]) -> None:
    """A horizon counts when it is the one that decides, and by what it comes to: 100 steps are 100 steps."""
    config = configs["base"]
    free = replace(config.train, num_iterations=None, target_param_data_ratio=None)

    def recipe(**train: Any) -> str:
        return make_plan(replace(config, train=replace(free, **train)), FACTS).recipe.hash

    for key, first, second in (
        ("target_flops", 1e14, 3e14),
        ("target_param_data_ratio", 5.0, 10.0),
        ("num_epochs", 1, 2),
    ):
        assert recipe(**{key: first}) != recipe(**{key: second})
    params = make_plan(config, FACTS).recipe.params.total
    assert recipe(target_param_data_ratio=100.5 * 16384 / params) == recipe(num_iterations=100)
    assert recipe(num_iterations=100, num_epochs=5) == recipe(num_iterations=100)


def test_width_rounded_or_not(configs: dict[str, RunConfig]) -> None:
    config = configs["base"]
    for depth, same in ((4, True), (3, False)):
        hashes = {
            make_plan(replace(config, model=replace(config.model, depth=depth, round_width=r)), FACTS).recipe.hash
            for r in (True, False)
        }
        assert (len(hashes) == 1) == same


DIMS: ModelDims = derive_dims(compose_run(["model.depth=2"]).config.model, 1024)


@pytest.mark.parametrize(
    ("change", "is_identity"),
    [
        ({"vocab_size": 1025}, True),
        ({"tokenizer": "abc"}, True),
        ({"init_from": "base/x@3"}, True),
        ({"init_mark": "abc"}, True),
        ({"dims": DIMS}, True),
        ({"manifest": {"count": 3}}, True),
        ({"device": "cuda", "dtype": "bfloat16", "compile": True, "device_memory": 80 * 10**9}, False),
        ({"world_size": 3}, False),
        ({"data_tokens": 5, "data_rows": 1, "data_source": "guessed", "vocab_source": "other"}, False),
    ],
    ids=lambda c: "+".join(c) if isinstance(c, dict) else None,
)
def test_what_is_found_on_disk_and_in_the_machine(
    configs: dict[str, RunConfig], change: dict[str, Any], is_identity: bool
) -> None:
    first, second = (make_plan(configs["base"], facts).recipe.hash for facts in (FACTS, replace(FACTS, **change)))
    assert (first != second) == is_identity


def plan(*overrides: str, **facts: Any) -> Plan:
    return make_plan(compose_run([*SMALL, *overrides]).config, replace(FACTS, **facts))


def test_a_plan_is_frozen_pure_and_json() -> None:
    made = plan()
    assert made == plan()
    with pytest.raises(FrozenInstanceError):
        made.recipe.steps = 3  # type: ignore[misc]
    body = json.loads(json.dumps(made.to_dict()))
    assert body["recipe_hash"] == made.recipe.hash and len(made.recipe.hash) == 12
    assert body["recipe"]["steps"] == 100 and body["recipe"]["model.n_layer"] == 4
    assert body["placement"]["accumulation"] == 1 and all(len(rule) == 3 for rule in body["rules"])


def test_every_number_has_its_rule() -> None:
    made = plan()
    names = [rule.name for rule in made.rules]
    assert len(names) == len(set(names)) and all(rule.rule for rule in made.rules)
    values = {rule.name: rule.value for rule in made.rules}
    assert values["parameters"] == made.recipe.params.total and values["steps"] == 100
    assert values["tokens"] == 100 * 16384 and values["passes over the data"] == 0.16  # 100 * 8 of 5,000 rows
    from_checkpoint = {r.name: r.rule for r in plan(dims=DIMS, init_from="base/d2@5").rules}
    assert from_checkpoint["layers"] == "of base/d2@5"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optim.matrix_lr=0.2"], "optim.matrix_lr=0.2 is outside the usual range 0.01 to 0.05"),
        (["optim.embedding_lr=0.01"], "optim.embedding_lr=0.01"),
        (["optim=muon_modern", "optim.embedding_lr=0.6"], "optim.embedding_lr=0.6 is outside"),
        (["schedule.warmup_steps=101"], "rise for 101 steps (schedule.warmup_steps), and the run has 100"),
        (["optim=muon_modern", "train.target_flops=1e13"], "on so short a horizon, which takes"),
        (["optim.grad_clip=9"], "optim.grad_clip=9"),
        (["train.num_iterations=1000"], "16.4 times"),
    ],
)
def test_unusual_requests_are_warned_about(overrides: list[str], said: str) -> None:
    assert any(said in warning for warning in plan(*overrides).warnings)


def test_usual_requests_are_not() -> None:
    assert plan().warnings == ()
    assert plan("optim=adamw", "optim.matrix_lr=0.001", "optim.grad_clip=0").warnings == ()


def test_rows_of_the_modern_network() -> None:
    """What it has is shown; what a network does not have is not."""
    values = {rule.name: rule.value for rule in plan("model=modern", vocab_size=1000).rules}
    assert values["vocabulary"] == 1000 and values["table rows"] == 1024
    assert (values["short window"], values["layers of short windows"]) == (512, 3)
    parts = [value for name, value in values.items() if name.startswith("parameters, ")]
    assert len(parts) == 6 and sum(parts) == values["parameters"]
    assert values["parameters, value embeddings"] == 2 * 1024 * 256
    shown = {rule.name for rule in plan().rules}
    assert not shown & {"table rows", "short window", "parameters, value embeddings", "parameters, scalars"}


def test_runs_from_before_a_feature_stay_what_they_are() -> None:
    """The recipe of a network without the newer features names none of them, so older runs can go on."""
    later = {"vocab_multiple", "qk_scale", "window_pattern", "value_embeds", "residual_scalars", "smear", "init"}
    names = {key.split(".")[-1] for key in plan().recipe.flat()}
    assert not names & (later | {"backout", "scalar_lr", "smear_lr", "value_embeddings", "scalars", "smear_gate"})
    assert later < {key.split(".")[-1] for key in plan("model=modern").recipe.flat()}


# What two runs were before optim=muon_modern and train.init_optimizer came: they can still be continued.
OLDER = {"muon_adamw": "4ea9e0658f6c", "adamw": "579c798eed73"}


@pytest.mark.parametrize("optim", OLDER)
def test_older_optimizers_keep_their_identity(optim: str) -> None:
    made = make_plan(compose_run([*SMALL, f"optim={optim}"]).config, FACTS).recipe
    assert made.hash == OLDER[optim]
    asked = {key for key in made.flat() if key.startswith(("optim.", "train."))}
    common = {"name", "embedding_lr", "unembedding_lr", "matrix_lr", "weight_decay", "grad_clip", "beta1", "beta2"}
    muon = {"ns_steps", "ns_dtype", "momentum.start", "momentum.end", "momentum.warmup_steps"}
    common |= {"eps", "batch_lr_scaling"} | (muon if optim == "muon_adamw" else set())
    assert asked == {f"optim.{key}" for key in common}


def test_settings_of_a_role_count_where_the_network_has_it(configs: dict[str, RunConfig]) -> None:
    modern = configs["muon_modern"]
    plain_network = replace(modern, model=configs["base"].model)
    later = ("value_embedding", "residual_a", "residual_b", "smear", "backout")
    for role in (*later, "embedding", "unembedding"):
        for config, counts in ((modern, True), (plain_network, role not in later)):
            other = changed(config, f"optim.{role}.weight_decay", 0.125)
            assert (make_plan(other, FACTS).recipe.hash != make_plan(config, FACTS).recipe.hash) == counts


def test_the_plan_of_the_modern_speedrun() -> None:
    """Depth 12 is the reference: its batch is 2^19, its rates and its decay are those asked for."""
    base = compose_run(["experiment=speedrun_modern", "model.depth=12"]).config
    made = make_plan(base, replace(FACTS, vocab_size=32768, data_tokens=None, data_rows=None)).recipe
    assert made.batch_tokens == 2**19 and made.steps == 12 * made.params.scaling // 2**19 == 2520
    assert made.lrs["embedding"] == 0.3 and made.lrs["residual_b"] == 0.5 and made.lrs["smear"] == 0.2
    assert made.weight_decay == pytest.approx(0.28, rel=1e-12)
    sft = compose_run(["experiment=speedrun_modern", "stage=sft"]).config
    tuned = make_plan(sft, FACTS).recipe
    assert tuned.weight_decay == 0 and tuned.init_optimizer and tuned.flat()["train.init_optimizer"] is True
    assert tuned.lrs["matrix"] == pytest.approx(0.8 * 0.02) and tuned.batch_tokens == 2**19
    falling = {key: tuned.asked[f"optim.momentum.{key}"] for key in ("start", "end", "warmup_steps", "final")}
    assert falling == {"start": 0.85, "end": 0.95, "warmup_steps": 300, "final": None}
    assert tuned.asked["schedule.warmdown_ratio"] == 0.5


@pytest.mark.parametrize("option", ["optim=muon_adamw", "optim=adamw", "schedule=linear"])
def test_the_modern_speedrun_with_another_option(option: str) -> None:
    """No stage of it sets keys that the other option lacks."""
    for stage in ("base", "sft"):
        config = compose_run(["experiment=speedrun_modern", f"stage={stage}", option]).config
        assert str(config.schedule.name if "schedule" in option else config.optim.name) == option.partition("=")[2]


@pytest.mark.parametrize("stage", ["base", "mid", "sft"])
def test_a_tiny_run_is_not_scaled_for_its_batch(stage: str) -> None:
    """Else so few tokens would get a weight decay in the thousands."""
    asked = [f"stage={stage}", "debug=tiny", "optim=muon_modern", "model.max_seq_len=64"]
    made = make_plan(compose_run(asked).config, FACTS)
    assert made.recipe.weight_decay == 0.28 and not [said for said in made.warnings if "decay" in said]


def test_lanes() -> None:
    assert plan().recipe.lanes == 8 and plan("data.lanes=5").recipe.lanes == 5
