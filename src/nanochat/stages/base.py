"""Pretraining: next-token prediction on a corpus, from nothing or, with `init_from`, from another base run.

With `schedule=decay` the start is a branch off that run's trunk: weights, optimizer and data position.
"""

from nanochat.config.data import CorpusConfig
from nanochat.errors import ConfigError
from nanochat.stages.job import Job
from nanochat.stages.training_stage import run_training


def run_base(job: Job) -> None:
    """Trains a base model on `data`, which must be a corpus."""
    if not isinstance(job.config.data, CorpusConfig):
        raise ConfigError(
            "stage=base reads a corpus; data=mid and data=sft are mixtures of conversations: take data=embedded or "
            "data=text"
        )
    run_training(job)
