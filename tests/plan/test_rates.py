"""Peak rates by role: scaled with the width, and with the batch if asked."""

from typing import Any

import pytest

from nanochat.config.load import compose_run
from nanochat.plan.facts import Facts
from nanochat.plan.plan import Recipe, make_plan

FACTS = Facts(vocab_size=1024, vocab_source="given", data_tokens=10**6, data_rows=5000, data_source="counted")
SMALL = ["train.num_iterations=100", "train.total_batch_size=16384"]
EXTRAS = {"value_embedding": 0.1, "residual_a": 0.005, "residual_b": 0.5, "smear": 0.2, "backout": 0.2}


def recipe(*overrides: str) -> Recipe:
    return make_plan(compose_run([*SMALL, *overrides]).config, FACTS).recipe


def near(**values: float) -> Any:
    return pytest.approx(values)


def test_rates_scale_with_the_width() -> None:
    """(D / 768)^-0.5 on the embedding and the head, nothing on the matrices."""
    assert recipe("model.depth=12").lrs == near(embedding=0.2, unembedding=0.004, matrix=0.02)
    quarter = recipe("model.depth=3").lrs  # 192 wide: a quarter of 768
    assert quarter == near(embedding=0.4, unembedding=0.008, matrix=0.02)
    half = recipe("train.init_lr_frac=0.5", "model.depth=12").lrs
    assert half == near(embedding=0.1, unembedding=0.002, matrix=0.01)


def test_rates_scale_with_the_batch_if_asked() -> None:
    """sqrt(B / 2^19) on all; weight decay times that times D_ref / D, D the horizon asked for, however long the run."""
    asked = ["model.depth=12", "optim.batch_lr_scaling=true", "optim.weight_decay=0.1", "train.total_batch_size=131072"]
    made = recipe(*asked)
    assert made.lrs == near(embedding=0.1, unembedding=0.002, matrix=0.01)
    matrices, table = 12 * 12 * 768**2, 1024 * 768
    assert made.steps == 100
    assert made.weight_decay == pytest.approx(0.1 * 0.5 * (matrices + table) / (matrices + 2 * table))
    deep = recipe(*asked, "model.depth=24", "train.param_count=scaling", "train.target_param_data_ratio=12")
    assert deep.weight_decay == pytest.approx(0.1 * 0.5 * (matrices + table) / (8 * matrices + 2 * table))
    assert recipe(*asked, "train.target_param_data_ratio=null").weight_decay == pytest.approx(0.1 * 0.5)
    assert recipe("optim.weight_decay=0.1").weight_decay == 0.1


def test_rates_of_the_modern_network() -> None:
    """Value embeddings by the width, at half the embedding's rate; scalars, smear and backout not by the width."""
    usual = {"unembedding": 0.004, "matrix": 0.02}
    assert recipe("model=modern", "model.depth=12").lrs == near(embedding=0.2, **usual, **EXTRAS)
    double = EXTRAS | {"embedding": 0.4, "unembedding": 0.008, "matrix": 0.02, "value_embedding": 0.2}
    assert recipe("model=modern", "model.depth=3", "model.head_dim=64").lrs == near(**double)
    asked = ("optim.scalar_lr=1.0", "optim.smear_lr=0.3", "train.init_lr_frac=0.5")
    lrs = recipe("model=modern", "model.depth=12", *asked).lrs
    assert lrs["residual_a"] == 0.005 and lrs["residual_b"] == 0.5 and lrs["smear"] == lrs["backout"] == 0.15


def test_smear_and_backout_do_not_scale_with_the_batch() -> None:
    asked = ["model=modern", "model.depth=12", "optim.batch_lr_scaling=true", "train.total_batch_size=131072"]
    halved = {role: rate / 2 for role, rate in EXTRAS.items()} | {"smear": 0.2, "backout": 0.2}
    assert recipe(*asked).lrs == near(embedding=0.1, unembedding=0.002, matrix=0.01, **halved)


@pytest.mark.parametrize(("key", "features"), [("scalar_lr", ["residual_scalars"]), ("smear_lr", ["smear", "backout"])])
def test_a_rate_is_identity_where_something_has_it(key: str, features: list[str]) -> None:
    assert recipe(f"optim.{key}=0.01").hash == recipe().hash
    for feature in features:
        on = f"model.{feature}=true"
        assert recipe(on, f"optim.{key}=0.01").hash != recipe(on).hash
