from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nanochat.config.optim import OptimConfig
from nanochat.errors import MismatchError
from nanochat.optim.adamw import AdamWGroup, AdamWSettings
from nanochat.optim.build import build_optimizer
from nanochat.optim.muon import MuonGroup
from nanochat.optim.muon_modern import MuonModernGroup, MuonModernSettings
from nanochat.optim.optimizer import Optimizer, check_cover
from nanochat.plan.schedules import StepRates

Make = Callable[..., OptimConfig]
LRS = {"embedding": 0.05, "unembedding": 0.01, "matrix": 0.02}
ROLES = {"wte": "embedding", "a": "matrix", "b": "matrix", "c": "matrix", "head": "unembedding"}


def new_params(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"wte": (11, 8), "a": (8, 8), "b": (8, 8), "c": (32, 8), "head": (11, 32)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator) / 3) for name, shape in shapes.items()}


def loss_of(params: dict[str, nn.Parameter]) -> torch.Tensor:
    """A small network that learns 'the next id is this id + 1'."""
    ids = torch.arange(11)
    x = params["wte"][ids]
    x = x + (x @ params["a"].T).relu() @ params["b"].T
    logits = (x @ params["c"].T).relu() @ params["head"].T
    return F.cross_entropy(logits, (ids + 1) % 11)


def train(params: dict[str, nn.Parameter], optimizer: Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()
        losses.append(loss.item())
        optimizer.update(StepRates(1 / (1 + step / 20), min(0.95, 0.85 + step / 200), 1 - step / 100))
    return losses


@pytest.mark.parametrize("name", ["muon_adamw", "muon_modern", "adamw"])
def test_learns(make_config: Make, name: str) -> None:
    params = new_params()
    losses = train(params, build_optimizer(params, ROLES, make_config(name), LRS), range(40))
    assert losses[0] > 2.0 and losses[-1] < 0.1


def test_which_rule_updates_which_parameter(make_config: Make) -> None:
    params = new_params()
    muon = build_optimizer(params, ROLES, make_config("muon_adamw"), LRS).groups
    assert {n for g in muon if isinstance(g, MuonGroup) for n in g.members} == {"a", "b", "c"}
    assert {n: g.settings.lr for g in muon for n in g.members} == {n: LRS[ROLES[n]] for n in params}
    assert all(isinstance(g, AdamWGroup) for g in build_optimizer(params, ROLES, make_config("adamw"), LRS).groups)


def test_muon_adamw_decays_embedding_and_head_only(make_config: Make) -> None:
    for name, decayed in (("muon_adamw", {"wte", "head"}), ("adamw", set(ROLES))):
        moved = []
        for weight_decay in (0.0, 0.5):
            params = new_params()
            optimizer = build_optimizer(params, ROLES, make_config(name, weight_decay=weight_decay), LRS)
            train(params, optimizer, range(1))
            moved.append({n: p.detach().clone() for n, p in params.items()})
        assert {n for n in ROLES if not torch.equal(moved[0][n], moved[1][n])} == decayed


def test_the_groups_of_a_modern_network(make_config: Make) -> None:
    """Value gates are Muon matrices; what multiplies a stream is never decayed."""
    roles = {"table": "value_embedding", "gate": "matrix", "residual.a": "residual_a", "residual.b": "residual_b"}
    roles |= {"smear.gate": "smear", "smear.scale": "smear", "backout.scale": "backout"}
    shapes = {"table": (11, 8), "gate": (2, 12), "residual.a": (3,), "residual.b": (3,), "smear.gate": (1, 24)}
    shapes |= {"smear.scale": (1,), "backout.scale": (1,)}
    params = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    for p in params.values():
        p.grad = torch.ones_like(p)
    lrs = {role: 0.01 * place for place, role in enumerate(sorted(set(roles.values())), 1)}
    for name, matrices in (("muon_adamw", {"gate"}), ("adamw", set())):
        optimizer = build_optimizer(params, roles, make_config(name, weight_decay=0.5), lrs)
        muon = {member for group in optimizer.groups if isinstance(group, MuonGroup) for member in group.members}
        adamw = [group for group in optimizer.groups if isinstance(group, AdamWGroup)]
        decayed = {member for group in adamw if group.settings.weight_decay for member in group.members}
        assert muon == matrices and decayed == {"table", "gate"} - matrices
        assert {n: g.settings.lr for g in optimizer.groups for n in g.members} == {n: lrs[roles[n]] for n in params}
        before = {n: p.detach().clone() for n, p in params.items()}
        optimizer.update(StepRates(1.0, 0.9))
        assert all(bool((p < before[n]).all()) for n, p in params.items()), "each moves against its gradient"


# Role -> betas and weight decay of AdamW in the published system.
MODERN = {
    "unembedding": (0.8, 0.96, 0.01),
    "embedding": (0.8, 0.995, 0.001),
    "value_embedding": (0.8, 0.995, 0.01),
    "residual_a": (0.8, 0.95, 0.05),
    "residual_b": (0.96, 0.95, 0.0),
    "smear": (0.8, 0.95, 0.0),
    "backout": (0.8, 0.95, 0.0),
}


def test_the_settings_of_muon_modern(make_config: Make) -> None:
    config = make_config("muon_modern", weight_decay=0.125)
    params = {role: nn.Parameter(torch.ones(2, 2)) for role in (*MODERN, "matrix")}
    lrs = {role: 0.01 * place for place, role in enumerate(params, 1)}
    optimizer = build_optimizer(params, {role: role for role in params}, config, lrs)
    matrix = [group for group in optimizer.groups if isinstance(group, MuonModernGroup)]
    assert [list(group.members) for group in matrix] == [["matrix"]]
    assert matrix[0].settings == MuonModernSettings(lrs["matrix"], 0.125, 0.97, 5, torch.float32, 0.9)
    adamw = [group for group in optimizer.groups if isinstance(group, AdamWGroup)]
    found = {name: group.settings for group in adamw for name in group.members}
    wanted = {role: AdamWSettings(lrs[role], b1, b2, 1e-10, decay) for role, (b1, b2, decay) in MODERN.items()}
    assert found == wanted


def test_the_decay_factor_is_that_of_the_matrices(make_config: Make) -> None:
    """Towards the end of a run the matrices decay no more; what AdamW updates still does."""
    moved = []
    for factor in (1.0, 0.0):
        params = new_params()
        optimizer = build_optimizer(params, ROLES, make_config("muon_modern"), LRS)
        loss_of(params).backward()
        optimizer.update(StepRates(1.0, 0.9, factor))
        moved.append({n: p.detach().clone() for n, p in params.items()})
    assert {n for n in ROLES if not torch.equal(moved[0][n], moved[1][n])} == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["muon_adamw", "muon_modern"])
def test_stacking_changes_nothing(make_config: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    results = []
    for elements in (2**26, 1):
        monkeypatch.setattr("nanochat.optim.muon.STACK_ELEMENTS", elements)
        params = new_params()
        train(params, build_optimizer(params, ROLES, make_config(name), LRS), range(5))
        results.append(dict(params))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["muon_adamw", "muon_modern", "adamw"])
def test_saved_state_resumes_bit_for_bit(make_config: Make, name: str) -> None:
    params = new_params()
    optimizer = build_optimizer(params, ROLES, make_config(name), LRS)
    train(params, optimizer, range(5))
    weights = {n: p.detach().clone() for n, p in params.items()}
    saved = {n: t.clone() for n, t in optimizer.state_tensors().items()}
    straight = train(params, optimizer, range(5, 10))

    params = {n: nn.Parameter(w) for n, w in weights.items()}
    optimizer = build_optimizer(params, ROLES, make_config(name), LRS)
    optimizer.load_state_tensors(saved)
    assert optimizer.step == 5
    assert train(params, optimizer, range(5, 10)) == straight


def test_state_is_named_after_parameters(make_config: Make) -> None:
    params = new_params()
    state = build_optimizer(params, ROLES, make_config("muon_adamw"), LRS).state_tensors()
    moments = {f"{n}/{m}" for n in ("wte", "head") for m in ("exp_avg", "exp_avg_sq")}
    assert set(state) == {"step"} | moments | {f"{n}/momentum" for n in "abc"}
    assert all(t.shape == params[n.split("/")[0]].shape for n, t in state.items() if n != "step")


def test_state_of_another_optimizer_is_refused(make_config: Make) -> None:
    params = new_params()
    state = build_optimizer(params, ROLES, make_config("adamw"), LRS).state_tensors()
    optimizer = build_optimizer(params, ROLES, make_config("muon_adamw"), LRS)
    with pytest.raises(MismatchError, match=r"a/exp_avg .*saved state"):
        optimizer.load_state_tensors(state)
    wrong = optimizer.state_tensors() | {"wte/exp_avg": torch.zeros(12, 8)}
    with pytest.raises(MismatchError, match=r"wte/exp_avg has shape \(12, 8\)"):
        optimizer.load_state_tensors(wrong)


def test_every_parameter_in_exactly_one_group(make_config: Make) -> None:
    params = new_params()
    with pytest.raises(AssertionError, match="parameter wte has no role"):
        build_optimizer(params, {n: r for n, r in ROLES.items() if n != "wte"}, make_config("adamw"), LRS)
    with pytest.raises(AssertionError, match="no learning rate for role scalar of c"):
        build_optimizer(params, ROLES | {"c": "scalar"}, make_config("adamw"), LRS)
    groups = build_optimizer(params, ROLES, make_config("adamw"), LRS).groups
    with pytest.raises(AssertionError, match="in no optimizer group: new"):
        check_cover({*params, "new"}, groups)
    with pytest.raises(AssertionError, match="more than one optimizer group: wte"):
        check_cover(set(params), [*groups, groups[0]])


def test_missing_gradient_is_named(make_config: Make) -> None:
    params = new_params()
    optimizer = build_optimizer(params, ROLES, make_config("muon_adamw"), LRS)
    with pytest.raises(AssertionError, match="no gradient for wte"):
        optimizer.update(StepRates(1.0, 0.9))
