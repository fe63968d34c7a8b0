"""The pipeline's own work; its stages are run in this process here, in processes of their own in tests/e2e."""

import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from workshop import Workshop, steps_saved

from nanochat.cluster.frozen import Ended, thaw
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.stages.job import Job
from nanochat.stages.pipeline import run_pipeline


@pytest.fixture
def started() -> Iterator[list[str]]:
    """The stages that were started."""
    from nanochat.train import dispatch

    names: list[str] = []

    def run_here(path: Path) -> Ended:
        job = thaw(path)
        names.append(str(job.config.stage))
        try:
            dispatch(job.config, job.overrides, job.config_dirs)
        except NanochatError as error:
            print(f"error: {error}")
            return Ended(error.exit_code, 0.1)
        return Ended(0, 0.1)

    with patch("nanochat.stages.pipeline.run_worker", run_here), patch("nanochat.reporting.report.PLOTS", ()):
        yield names


def pipeline(workshop: Workshop, *extra: str) -> Job:
    """Tiny stages; what is the same for the stages of `Workshop.overrides` is given once."""
    common = [f"base_dir={workshop.base_dir}", "tokenizer.name=tiny", "tokenizer.vocab_size=300", "data=text"]
    common += [f"data.root={workshop.corpus}", "runtime=cpu", "runtime.num_threads=1", "model.depth=1"]
    common += ["model.aspect_ratio=32", "model.head_dim=16", "model.max_seq_len=64", "eval.tokens=256", "eval.every=2"]
    common += ["eval.steps=null", "eval.sample_every=-1", "eval.metrics_max_problems=1"]
    common += ["~data.tasks.spelling_bee"]
    train = "'train.num_iterations=3','train.total_batch_size=512','train.device_batch_size=8'"
    common += [f"pipeline.overrides.base=[{train}]"]
    short = f"'data.identity={workshop.base_dir / 'short.jsonl'}','data.val_tasks.spelling_bee.stop=20'"
    mixed = f"{short},'data.tasks.simple_spelling.stop=30','eval.metrics_every=-1'"
    common += [f"pipeline.overrides.{s}=['data={s}_generated',{train},{mixed}]" for s in ("mid", "sft")]
    common += ["pipeline.overrides.eval=['data=sft_generated','eval=generated']"]
    composed = compose_run(["stage=pipeline", *common, *extra])
    return Job(composed.config, tuple(composed.overrides))


def test_from_the_tokenizer_to_a_conversation(
    workshop: Workshop, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = pipeline(workshop, "run=whole")
    run_pipeline(job)
    assert started == ["tokenizer", "base", "mid", "sft", "eval"]
    first = capsys.readouterr().out
    routes, _, rest = first.partition("[1/5]")
    assert re.search(r"data\.root=\S+ +x +x *\n", routes) and re.search(r"model\.depth=1( +x){5} *\n", routes)
    assert re.search(r"train\.num_iterations=3 +x *\n", routes)
    assert re.search(r"\nsft +\d+ +3 +\d\.\d{4} +\d\.\d{4}", rest)  # the table of results
    assert "you: Who are you?\nnanochat: " in rest and rest.rstrip().endswith("nanochat chat sft/whole")
    assert all(steps_saved(workshop.folder(stage, "whole")) == [3] for stage in ("base", "mid", "sft"))
    assert "| sft |" in (workshop.base_dir / "pipelines" / "whole" / "report.md").read_text()

    run_pipeline(job)  # everything is there
    assert capsys.readouterr().out.count("is complete") == 5


def test_stops_at_the_first_failure(workshop: Workshop, started: list[str]) -> None:
    wrong = f"pipeline.overrides.mid=['data.identity={workshop.base_dir}/missing.jsonl','train.num_iterations=1']"
    with pytest.raises(NanochatError) as caught:
        run_pipeline(pipeline(workshop, "run=broken", wrong))
    assert started == ["tokenizer", "base", "mid"]
    assert "stage mid (3 of 5) ended with exit code 1" in str(caught.value)
    assert "the same command continues with this one" in str(caught.value)


def test_continues_with_the_stage_that_failed(workshop: Workshop, started: list[str]) -> None:
    two = "pipeline.stages=[base,mid]"
    broken = patch("nanochat.stages.progress.Reporter.report", side_effect=[None] * 3 + [NanochatError("no more")])
    with broken, pytest.raises(NanochatError, match=r"stage mid \(2 of 2\)"):
        run_pipeline(pipeline(workshop, "run=again", two))
    run_pipeline(pipeline(workshop, "run=again", two))
    assert started == ["base", "mid", "base", "mid"] and steps_saved(workshop.folder("mid", "again")) == [3]


def test_says_where_it_was_interrupted(workshop: Workshop) -> None:
    stopped = patch("nanochat.stages.pipeline.run_worker", side_effect=Interrupted("stopped by SIGTERM"))
    with stopped, pytest.raises(Interrupted) as caught:
        run_pipeline(pipeline(workshop, "run=stopped", "overwrite=true"))
    assert "stopped by SIGTERM in stage tokenizer (1 of 5)" in str(caught.value)
    assert "without overwrite=true" in str(caught.value) and caught.value.exit_code == 130


def test_a_dry_run_of_several_stages_is_refused(workshop: Workshop, started: list[str]) -> None:
    with pytest.raises(ConfigError, match="dry_run=true.*nanochat plan stage=pipeline"):
        run_pipeline(pipeline(workshop, "run=dry", "dry_run=true"))
    assert started == []


def test_everything_is_composed_before_the_first_stage(workshop: Workshop, started: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"optim.matrix_lrr"):
        run_pipeline(pipeline(workshop, "run=late", "pipeline.overrides.sft=['optim.matrix_lrr=1']"))
    assert started == []
