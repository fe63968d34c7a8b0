"""What is impossible can be said before torch is imported and before a tokenizer or data exist."""

from nanochat.config.root import RunConfig, Stage
from nanochat.plan.batch import derive_batch
from nanochat.plan.dims import derive_dims
from nanochat.plan.facts import Facts
from nanochat.plan.shards import check_auto, tokenizer_shards


def check_sizes(config: RunConfig) -> None:
    """Raises ConfigError for sizes that cannot be. A model that comes from a checkpoint is not asked."""
    if config.stage == Stage.base:
        check_auto(config)
    if config.stage == Stage.tokenizer:
        tokenizer_shards(config)
    if config.stage != Stage.base or config.init_from is not None:
        return
    dims = derive_dims(config.model, config.tokenizer.vocab_size)
    derive_batch(config, dims, Facts(vocab_size=config.tokenizer.vocab_size, vocab_source="tokenizer.vocab_size"))
