"""Midtraining and supervised fine-tuning: a mixture of conversations, from the model of the stage before.

mid: rows cut from a stream, every token a target, rates flat for 80 % then falling. sft: one conversation a row,
only the assistant's tokens are targets, rates at 2 % falling linearly. All of that is conf/stage/ and conf/data/.
"""

from nanochat.config.data import MixtureConfig
from nanochat.errors import ConfigError
from nanochat.stages.job import Job
from nanochat.stages.training_stage import run_training


def run_conversations(job: Job) -> None:
    """Trains on `data`, which must be a mixture. Serves mid and sft, whose defaults differ, not their code."""
    if not isinstance(job.config.data, MixtureConfig):
        raise ConfigError(
            f"stage={job.config.stage} reads a mixture of conversations; take data=mid or data=sft, or your own option"
        )
    run_training(job)
