import pytest

from nanochat.training.hooks import Hook, StepInfo


def hook(every: int, **options: bool) -> Hook:
    return Hook("x", every, lambda step: None, **options)


@pytest.mark.parametrize(
    ("every", "options", "due"),
    [
        (3, {}, [3, 6, 7]),
        (3, {"at_start": True}, [0, 3, 6, 7]),
        (100, {}, [7]),
        (-1, {}, []),
        (0, {}, []),
        (-1, {"at_start": True}, []),
        (-1, {"always_last": True}, [7]),
        (7, {"always_last": True}, [7]),
    ],
)
def test_when_it_is_due(every: int, options: dict[str, bool], due: list[int]) -> None:
    """-1 means never, also at the end and at the start."""
    assert [step for step in range(8) if hook(every, **options).due(step, 7)] == due


def test_the_last_step() -> None:
    info = StepInfo(step=7, total=7, loss=1.0, grad_norm=1.0, lr_factor=1.0, targets=1.0, seconds=1.0, epoch=0.1)
    assert info.last
