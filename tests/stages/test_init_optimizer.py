"""train.init_optimizer: fine-tuning that goes on with the momentum and the moments of its origin."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from workshop import Workshop, assert_same_run

from nanochat.checkpoint.load import load_optimizer
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, MismatchError
from nanochat.stages.training_stage import _rates

TUNED = ("init_from=base/ref", "train.num_iterations=4", "train.save_every=2", "eval.every=-1", "eval.sample_every=-1")


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_optimizer(run / "checkpoints" / f"step_{step:06d}")


@pytest.fixture(scope="module")
def kept(workshop: Workshop, base_run: Path) -> Path:
    return workshop.train("sft", "run=kept", *TUNED, "train.init_optimizer=true")


def test_the_state_goes_on(workshop: Workshop, base_run: Path, kept: Path) -> None:
    """Of tokens that have not come yet the moment has only faded, where a fresh one is 0."""
    fresh = workshop.train("sft", "run=fresh", *TUNED, "train.num_iterations=2")
    name = "wte.weight/exp_avg_sq"
    origin, ours, other = (state(run, step)[name] for run, step in ((base_run, 10), (kept, 2), (fresh, 2)))
    faded = (other == 0) & (origin > 0)
    assert bool(faded.any())
    torch.testing.assert_close(ours[faded], origin[faded] * 0.95**2)
    assert int(state(kept, 2)["step"]) == 12 and int(state(fresh, 2)["step"]) == 2


def test_it_is_part_of_what_the_run_is(workshop: Workshop, kept: Path) -> None:
    assert json.loads((kept / "plan.json").read_text())["recipe"]["train.init_optimizer"] is True
    with pytest.raises(MismatchError, match="train.init_optimizer was true, is null"):
        workshop.train("sft", "run=kept", *TUNED)


def test_continues_bit_for_bit(workshop: Workshop, kept: Path) -> None:
    again = kept.with_name("kept-again")
    shutil.copytree(kept, again)
    (again / "result.json").unlink()
    shutil.rmtree(again / "checkpoints" / "step_000004")
    assert_same_run(workshop.train("sft", "run=kept-again", *TUNED, "train.init_optimizer=true"), kept)


def test_another_optimizer_has_another_state(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MismatchError, match=r"from base/ref@10: .*exp_avg.*set train.init_optimizer=false"):
        workshop.train("sft", "run=no", *TUNED, "train.init_optimizer=true", "optim=adamw")


def test_a_run_from_nothing_has_nothing_to_take() -> None:
    with pytest.raises(ConfigError, match=r"train.init_optimizer=true .*give init_from="):
        compose_run(["stage=base", "train.init_optimizer=true"])


def test_whose_updates_the_momentum_counts() -> None:
    """Those of the run itself where it took an optimizer over; those of the trunk too on a branch."""
    decay = ["stage=base", "init_from=base/trunk", "schedule=decay"]
    asked = ["stage=sft", "train.init_optimizer=true"], ["stage=sft"], [*decay, "train.init_optimizer=true"], decay
    found = [_rates(compose_run(overrides).config, 1000, 150, 1150).momentum for overrides in asked]
    assert found == pytest.approx([0.90, 0.95, 0.95, 0.95])  # half of 300 steps up, or at the top
