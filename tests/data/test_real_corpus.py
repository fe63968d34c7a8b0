"""Real parquet shards, where there are any: $NANOCHAT_SHARED_DATA/pretrain, or ../shared/data beside the project."""

import os
from pathlib import Path

import pytest
from data_stand_ins import gather, read_step

from nanochat.config.data import DataKind, LocalConfig, Packing
from nanochat.data.corpus import open_corpus
from nanochat.data.source import Source, validation_batches
from nanochat.data.tokenized import CorpusTokens
from nanochat.tokenizer.bpe import Tokenizer

FOLDER = Path(os.environ.get("NANOCHAT_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "pretrain"
pytestmark = pytest.mark.skipif(not list(FOLDER.glob("*.parquet")), reason=f"no parquet files in {FOLDER}")


def open_docs(split: str) -> CorpusTokens:
    config = LocalConfig(
        kind=DataKind.text,
        packing=Packing.stream,
        lanes=None,
        workers=None,
        prefetch=2,
        root=str(FOLDER),
        num_shards=2,
        token_cache=False,
        val_every=50,
    )
    return CorpusTokens(open_corpus(config, split, FOLDER, seed=42), Tokenizer({bytes([i]): i for i in range(256)}))


@pytest.mark.parametrize("packing", [Packing.stream, Packing.bestfit])
def test_two_ranks_read_what_one_reads_before_and_after_a_resume(packing: Packing) -> None:
    def sources(world: int) -> list[Source]:
        docs = open_docs("train")
        return [Source(docs, packing, 256, 16, 4, 8, pad_id=256, rank=rank, world=world) for rank in range(world)]

    one, two = sources(1), sources(2)
    for _ in range(3):
        assert read_step(one) == read_step(two)
    resumed = sources(3)
    for source in resumed:
        source.load_state_dict(gather(two))
    assert read_step(one) == read_step(resumed)


def test_validation_is_bounded() -> None:
    batches = list(validation_batches(open_docs("val"), Packing.stream, 256, 8, 20_000, pad_id=256))
    assert sum(len(batch.inputs_BT) for batch in batches) == 79
