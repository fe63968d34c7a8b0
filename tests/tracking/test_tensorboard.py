from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nanochat.tracking.tensorboard import FOLDER, TensorboardTracker


def scalars(run_dir: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard itself shows for the folder."""
    events = EventAccumulator(str(run_dir / FOLDER), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resume_replaces_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    first = TensorboardTracker(tmp_path, 0)
    for step in range(1, 7):
        first.log(step, {"train/loss": step, "note": "text is left out"})
    first.finish()
    second = TensorboardTracker(tmp_path, 4)
    for step in range(5, 9):
        second.log(step, {"train/loss": 100 + step})
    second.finish()
    expected = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 105), (6, 106), (7, 107), (8, 108)]
    assert scalars(tmp_path, "train/loss") == expected
