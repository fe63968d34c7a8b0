"""Steps: precedence of the four horizons, against arithmetic done by hand."""

from dataclasses import replace

import pytest

from nanochat.config.load import compose_run
from nanochat.config.train import ParamCount, TrainConfig
from nanochat.errors import ConfigError
from nanochat.plan.facts import Facts
from nanochat.plan.plan import Plan, make_plan

D4 = compose_run(["model.depth=4", "train.total_batch_size=16384", "train.target_param_data_ratio=null"]).config
PARAMS = 2 * 1024 * 256 + 4 * 12 * 256**2  # vocabulary 1024: two tables, and the matrices of four layers
FLOPS = 6 * (PARAMS - 1024 * 256) + 12 * 4 * 256 * 2048
FACTS = Facts(vocab_size=1024, vocab_source="given", data_tokens=1_000_000, data_source="counted")


def plan(facts: Facts = FACTS, **train: object) -> Plan:
    changed: TrainConfig = replace(D4.train, **train)  # type: ignore[arg-type]
    return make_plan(replace(D4, train=changed), facts)


def test_the_first_that_is_set_decides() -> None:
    every = {"num_iterations": 7, "target_flops": 1e14, "target_param_data_ratio": 20.0, "num_epochs": 3}
    by_flops = round(1e14 / (FLOPS * 16384))
    by_ratio = int(20 * PARAMS // 16384)
    by_epochs = (1_000_000 // 2049 // 8) * 3
    assert len({7, by_flops, by_ratio, by_epochs}) == 4
    for number, (key, steps) in enumerate(zip(every, (7, by_flops, by_ratio, by_epochs), strict=True)):
        left = dict(list(every.items())[number:])
        made = plan(**left)
        assert made.recipe.steps == steps and made.recipe.tokens == steps * 16384
        rule = next(r.rule for r in made.rules if r.name == "steps")
        assert key.removeprefix("target_").removesuffix("param_data_ratio").split("_")[-1] in rule


def test_flops_are_rounded_and_the_ratio_is_floored() -> None:
    step = FLOPS * 16384
    assert plan(target_flops=2.6 * step).recipe.steps == 3
    assert plan(target_flops=2.4 * step).recipe.steps == 2
    per_step = 16384 / PARAMS
    assert plan(target_param_data_ratio=2.9 * per_step).recipe.steps == 2
    assert plan(target_param_data_ratio=3.0001 * per_step).recipe.steps == 3


def test_the_ratio_may_count_scaling_parameters_only() -> None:
    made = plan(target_param_data_ratio=50.0, param_count=ParamCount.scaling)
    assert made.recipe.steps == 50 * (PARAMS - 1024 * 256) // 16384


def test_the_guide() -> None:
    """20 tokens a parameter on d20: 21,400 steps of 524,288 tokens."""
    facts = Facts(vocab_size=65_536, vocab_source="")
    recipe = make_plan(compose_run(["model.depth=20"]).config, facts).recipe
    assert recipe.params.total == 560_988_160 and recipe.steps == 21_400
    assert recipe.tokens == 21_400 * 524_288
    d26 = make_plan(compose_run(["model.depth=26"]).config, facts).recipe.dims
    assert (d26.n_layer, d26.n_embd, d26.n_head) == (26, 1664, 13)


def test_epochs_of_conversations_in_rows_of_their_own() -> None:
    sft = compose_run(["stage=sft", "train.num_epochs=3"]).config
    facts = Facts(vocab_size=1024, vocab_source="", data_rows=1000, data_source="counted")
    assert make_plan(sft, facts).recipe.steps == (1000 // 32) * 3
    few = replace(facts, data_rows=5)
    assert make_plan(sft, few).recipe.steps == 3  # at least one step an epoch


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({}, "no horizon: set one of train.num_iterations, train.target_flops"),
        (
            {"target_flops": 1.0},
            f"train.target_flops=1 is less than one step of 16,384 tokens, which is {FLOPS * 16384:.3g}",
        ),
        (
            {"target_param_data_ratio": 1e-9},
            f"ratio=1e-09 is less than one step of 16,384 tokens, which is {16384 / PARAMS:.3g}",
        ),
    ],
)
def test_no_horizon(train: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**train)
    assert said in str(caught.value)


def test_epochs_of_data_of_unknown_size() -> None:
    with pytest.raises(ConfigError, match=r"train.num_epochs=2 needs the size of the data.*train.num_iterations"):
        plan(replace(FACTS, data_tokens=None), num_epochs=2)
