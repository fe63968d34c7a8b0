"""How a run begins: anew, from a checkpoint, not at all, or with an error that names the keys."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from workshop import Workshop, assert_same_run, history, steps_saved, weights

from nanochat.config.root import Resume
from nanochat.errors import ConfigError, MismatchError, MissingError, NanochatError
from nanochat.runtime.lock import hold
from nanochat.train import dispatch


def copy_of(run: Path, name: str, *, cut_to: int | None = None) -> Path:
    """Another run of the same content; `cut_to`: as if it had been killed after the save of that step."""
    made = run.with_name(name)
    shutil.copytree(run, made)
    if cut_to is not None:
        (made / "result.json").unlink()
        for step in steps_saved(made):
            if step > cut_to:
                shutil.rmtree(made / "checkpoints" / f"step_{step:06d}")
    return made


def test_a_complete_run_is_left_alone(workshop: Workshop, base_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of(base_run, "finished")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    workshop.train("base", "run=finished")
    assert "is complete; nothing to do" in capsys.readouterr().out
    changed = {path.name for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed <= {"log.txt"}


def test_resume_must(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MissingError, match="resume=must.*no complete checkpoint"):
        workshop.train("base", "run=must", "resume=must")
    copy_of(base_run, "must", cut_to=6)
    assert_same_run(workshop.train("base", "run=must", "resume=must"), base_run)


@pytest.mark.parametrize("cut_to", [6, None])
def test_resume_never(workshop: Workshop, base_run: Path, cut_to: int | None) -> None:
    run = copy_of(base_run, f"never-{cut_to}", cut_to=cut_to)
    with pytest.raises(MismatchError, match="resume=never.*has a checkpoint of step.*overwrite=true"):
        workshop.train("base", f"run={run.name}", "resume=never")


def test_resume_never_sees_a_complete_run_without_checkpoints(workshop: Workshop, base_run: Path) -> None:
    run = copy_of(base_run, "bare")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(MismatchError, match="a complete run"):
        workshop.train("base", "run=bare", "resume=never")


def test_overwrite_begins_anew(workshop: Workshop, base_run: Path) -> None:
    run = copy_of(base_run, "over")
    (run / "left over").write_text("x")
    workshop.train("base", "run=over", "overwrite=true")
    assert not (run / "left over").exists()
    assert_same_run(run, base_run)
    assert len(json.loads((run / "environment.json").read_text())) == 1


def test_another_identity_is_refused_with_its_keys(workshop: Workshop, base_run: Path) -> None:
    copy_of(base_run, "other", cut_to=6)
    with pytest.raises(MismatchError) as caught:
        workshop.train("base", "run=other", "optim.matrix_lr=0.03", "seed=7")
    assert "lr.matrix was 0.02, is 0.03" in str(caught.value) and "seed was 42, is 7" in str(caught.value)
    assert "overwrite=true" in str(caught.value)
    with pytest.raises(MismatchError, match='of another identity: optim.name was "muon_adamw", is "adamw"; '):
        workshop.train("base", "run=other", "optim=adamw", "data.lanes=2")
    assert steps_saved(workshop.folder("base", "other")) == [3, 6]


@pytest.mark.parametrize("change", ["grown", "renamed", "new"])
def test_a_changed_corpus_is_refused_by_the_name_of_the_file(
    change: str, workshop: Workshop, base_run: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(workshop.corpus, corpus)
    first, *_ = sorted(corpus.iterdir())
    if change == "grown":
        first.write_bytes(first.read_bytes() + first.read_bytes())
        said = rf"data\.files\.{first.name} was"
    elif change == "renamed":
        first.rename(corpus / f"0{first.name}")
        said = rf"data\.files\.0{first.name} was null.*data\.files\.{first.name} was .* is null"
    else:
        shutil.copy(first, corpus / f"0{first.name}")
        said = rf"data\.files\.0{first.name} was null"
    run = copy_of(base_run, f"corpus-{change}")
    with pytest.raises(MismatchError, match=said):
        workshop.train("base", f"run={run.name}", f"data.root={corpus}")


def test_placement_may_change(workshop: Workshop, base_run: Path) -> None:
    """Another cut of the same step, another number of threads: the same run, up to the order of additions."""
    run = copy_of(base_run, "moved", cut_to=6)
    workshop.train("base", "run=moved", "train.device_batch_size=8", "runtime.num_threads=null")
    before = [[row for row in history(r) if row["step"] <= 6] for r in (run, base_run)]
    assert before[0] == before[1]
    losses = [[row["train/loss"] for row in history(r) if "train/loss" in row] for r in (run, base_run)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and len(losses[0]) == 10
    attempts = json.loads((run / "environment.json").read_text())
    assert [a["placement"]["device_rows"] for a in attempts] == [3, 8]
    assert [a["placement"]["num_threads"] for a in attempts] == [1, None]


def test_what_is_measured_may_change(workshop: Workshop, base_run: Path) -> None:
    run = copy_of(base_run, "cosmetic", cut_to=6)
    workshop.train("base", "run=cosmetic", "eval.every=-1", "eval.prompts=[b]", "tags=[x]", "train.save_every=-1")
    assert weights(run, 10) == weights(base_run, 10)


def test_a_base_trained_again_makes_another_mid(workshop: Workshop, base_run: Path) -> None:
    trunk = copy_of(base_run, "trunk")
    workshop.train("mid", "run=heir", "init_from=base/trunk", "train.num_iterations=2")
    shutil.rmtree(trunk)
    workshop.train("base", "run=trunk", "seed=1")
    with pytest.raises(MismatchError, match="init_from has other weights than it had"):
        workshop.train("mid", "run=heir", "init_from=base/trunk", "train.num_iterations=2")


def test_a_base_trained_again_to_the_same_weights_does_not(workshop: Workshop, base_run: Path) -> None:
    trunk = copy_of(base_run, "twin")
    workshop.train("mid", "run=heir2", "init_from=base/twin", "train.num_iterations=2")
    shutil.rmtree(trunk)
    workshop.train("base", "run=twin")
    workshop.train("mid", "run=heir2", "init_from=base/twin", "train.num_iterations=2")


def test_a_dry_run_trains_and_saves_nothing(workshop: Workshop, base_run: Path) -> None:
    run = workshop.train("base", "run=dry", "dry_run=true")
    assert history(run) == history(base_run)
    assert not (run / "checkpoints").exists()
    assert not (run / "report.md").exists() and not (run / "result.json").exists()


def test_a_dry_run_does_not_mix_with_a_saved_run(workshop: Workshop, base_run: Path) -> None:
    copy_of(base_run, "wet", cut_to=6)
    with pytest.raises(MismatchError, match="dry_run=true would mix"):
        workshop.train("base", "run=wet", "dry_run=true", "overwrite=true")
    assert steps_saved(workshop.folder("base", "wet")) == [3, 6]


def test_a_damaged_checkpoint_is_passed_over(workshop: Workshop, base_run: Path) -> None:
    run = copy_of(base_run, "damaged", cut_to=9)
    model = run / "checkpoints" / "step_000009" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    workshop.train("base", "run=damaged")
    assert history(run) == history(base_run) and weights(run, 10) == weights(base_run, 10)


def test_a_run_cannot_start_from_itself(workshop: Workshop, base_run: Path) -> None:
    run = copy_of(base_run, "ouroboros")
    with pytest.raises(ConfigError, match="this very run"):
        workshop.train("base", "run=ouroboros", "init_from=base/ouroboros@6", "overwrite=true")
    assert steps_saved(run) == steps_saved(base_run)


def test_two_processes_cannot_train_one_run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.stages.training_stage.hold", lambda folder: hold(folder, patience=0.0))
    with hold(workshop.folder("base", "shared")), pytest.raises(NanochatError, match=r"in use by process \d+ on"):
        workshop.train("base", "run=shared")


def test_the_run_folder_holds_what_is_promised(workshop: Workshop, base_run: Path, mid_run: Path) -> None:
    for run in (base_run, mid_run):
        names = {path.name for path in run.iterdir()}
        assert names >= {
            "config.yaml", "overrides.yaml", "plan.json", "environment.json", "metrics.jsonl", "log.txt",
            "report.md", "samples.jsonl", "tokenizer", "checkpoints", "result.json",
        }  # fmt: skip
    result = json.loads((base_run / "result.json").read_text())
    assert result["status"] == "complete" and result["step"] == 10 and "val/bpb" in result["metrics"]


def test_plots_are_drawn(workshop: Workshop) -> None:
    run = workshop.train("base", "run=drawn", "train.num_iterations=2", plots=True)
    assert {"loss.png", "learning_rate.png", "throughput.png"} <= {path.name for path in run.iterdir()}


def test_the_job_is_run_as_it_was_composed(workshop: Workshop, base_run: Path) -> None:
    """What is saved can be run again and is the same run."""
    from nanochat.config.frozen import read_config

    saved = read_config(base_run / "config.yaml")
    assert saved == workshop.job("base", "run=ref").config
    dispatch(replace(saved, resume=Resume.must), [])
