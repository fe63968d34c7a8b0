"""Dimensions from one dial, against numbers written out by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.load import compose_run
from nanochat.config.model import ModelConfig
from nanochat.errors import ConfigError
from nanochat.plan.dims import count_params, derive_dims, flops_per_token

VOCAB = 65_536
GPT = compose_run([]).config.model
MODERN = compose_run(["model=modern"]).config.model
LEGAL = [1, 2, 3, 4, 6, 7, 8, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 31, 32]


def gpt(**changes: object) -> ModelConfig:
    return replace(GPT, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("depth", "width", "heads"),
    [(1, 64, 1), (2, 128, 1), (4, 256, 2), (12, 768, 6), (15, 960, 8), (20, 1280, 10), (26, 1664, 13), (32, 2048, 16)],
)
def test_width_and_heads(depth: int, width: int, heads: int) -> None:
    dims = derive_dims(gpt(depth=depth), VOCAB)
    assert (dims.n_layer, dims.n_embd, dims.n_head, dims.n_kv_head) == (depth, width, heads, heads)
    assert dims.head_dim * dims.n_head == dims.n_embd and dims.vocab_size == VOCAB and dims.seq_len == 2048


def test_d20_has_the_published_number_of_parameters() -> None:
    counts = count_params(derive_dims(gpt(depth=20), VOCAB))
    assert counts.total == 560_988_160
    assert counts.embedding == counts.unembedding == 65_536 * 1280
    assert counts.matrices == 20 * 12 * 1280**2  # four attention matrices and two of the MLP, 4 wide
    assert counts.scaling == 560_988_160 - 65_536 * 1280


def test_fewer_kv_heads_have_fewer_parameters() -> None:
    full, grouped = (count_params(derive_dims(gpt(depth=16, gqa_ratio=r), VOCAB)).matrices for r in (1, 4))
    assert full - grouped == 16 * 2 * 1024 * (8 - 2) * 128  # keys and values of 6 heads less in each layer


def test_flops_by_hand() -> None:
    d20 = derive_dims(gpt(depth=20), VOCAB)
    assert flops_per_token(d20) == 6 * (560_988_160 - 65_536 * 1280) + 12 * 20 * 10 * 128 * 2048


def test_modern_d20_by_hand() -> None:
    """15 short windows of 512, 10 value embeddings, a vocabulary that is a multiple of 64 already."""
    dims = derive_dims(replace(MODERN, depth=20), 32_768)
    counts = count_params(dims)
    assert counts.matrices == 20 * 12 * 1280**2 + 10 * 12 * 10  # and a gate of 12 weights for each of 10 heads
    assert counts.value_embeddings == 10 * 32_768 * 1280
    assert (counts.scalars, counts.smear_gate) == (2 * 20 + 2, 24)
    assert counts.total == counts.matrices + 12 * 32_768 * 1280 + 42 + 24
    assert counts.scaling == counts.matrices + 32_768 * 1280
    seen = 15 * 512 + 5 * 2048
    assert flops_per_token(dims) == 6 * (counts.scaling + 24) + 12 * 10 * 128 * seen


def test_a_window_longer_than_the_context_counts_as_the_context() -> None:
    short = derive_dims(replace(MODERN, depth=4, max_seq_len=64), 320)
    full = derive_dims(replace(MODERN, depth=4, max_seq_len=64, window_pattern=None), 320)
    assert short.short_window == 128 and flops_per_token(short) == flops_per_token(full)


@pytest.mark.parametrize(("vocab", "rows"), [(1, 64), (64, 64), (65, 128), (50_257, 50_304)])
def test_padded_vocabulary(vocab: int, rows: int) -> None:
    dims = derive_dims(replace(MODERN, depth=2), vocab)
    assert (dims.vocab_size, dims.table_rows) == (vocab, rows)
    assert count_params(dims).embedding == count_params(dims).unembedding == rows * 128
    assert derive_dims(gpt(depth=2), vocab).table_rows == vocab


def test_a_pattern_without_short_windows_is_none() -> None:
    assert derive_dims(gpt(window_pattern="LL"), VOCAB) == derive_dims(gpt(), VOCAB)


@pytest.mark.parametrize("depth", [5, 9, 11, 13])
def test_illegal_depths_name_legal_ones_and_the_way_out(depth: int) -> None:
    with pytest.raises(ConfigError) as caught:
        derive_dims(gpt(depth=depth), VOCAB)
    said = str(caught.value)
    assert f"model.depth={depth} gives a width of {64 * depth}" in said and "model.round_width=true" in said
    named = said.split("nearest legal depths: ")[1].split(";")[0].split(", ")
    assert all(int(d) in LEGAL for d in named) and len(named) == 4
    assert min(abs(int(d) - depth) for d in named) == min(abs(d - depth) for d in LEGAL)
    rounded = derive_dims(gpt(depth=depth, round_width=True), VOCAB)
    assert rounded.n_embd == -(-64 * depth // 128) * 128 and rounded.n_embd == rounded.n_head * 128


def test_every_other_depth_is_legal() -> None:
    for depth in range(1, 33):
        try:
            derive_dims(gpt(depth=depth), VOCAB)
            legal = True
        except ConfigError:
            legal = False
        assert legal == (depth in LEGAL)


def test_gqa_ratios() -> None:
    d16 = derive_dims(gpt(depth=16, gqa_ratio=4), VOCAB)
    assert (d16.n_head, d16.n_kv_head) == (8, 2)
    for ratio in (1, 2, 5, 10):
        assert derive_dims(gpt(depth=20, gqa_ratio=ratio), VOCAB).n_kv_head == 10 // ratio
    for ratio in (3, 4, 8, 20):
        with pytest.raises(ConfigError, match=rf"model.gqa_ratio={ratio} .* 10 query heads; legal: 1, 2, 5, 10$"):
            derive_dims(gpt(depth=20, gqa_ratio=ratio), VOCAB)


def test_explicit_sizes_win_over_the_dial() -> None:
    dims = derive_dims(gpt(depth=20, n_layer=3, n_embd=96, n_head=4, n_kv_head=2), 1000)
    assert (dims.n_layer, dims.n_embd, dims.n_head, dims.n_kv_head, dims.head_dim) == (3, 96, 4, 2, 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_embd": 100, "n_head": 3}, "model.n_embd=100 does not divide into model.n_head=3"),
        ({"n_embd": 101}, "take an even width"),
        (
            {"n_embd": 96, "n_head": 4, "n_kv_head": 3},
            "model.n_kv_head=3 does not divide 4 query heads; legal: 1, 2, 4",
        ),
        ({"head_dim": 3, "depth": 4, "round_width": True}, "model.head_dim=3 must be even"),
        ({"window_pattern": "SSX"}, "model.window_pattern='SSX' is not a pattern; it must be made of S"),
        ({"window_pattern": ""}, "model.window_pattern='' is not a pattern"),
        ({"n_embd": 8, "n_head": 1, "value_embeds": True}, "model.value_embeds=true needs a width of at least 12"),
        ({"n_embd": 16, "n_head": 1, "smear": True}, "model.smear=true needs a width of at least 24, and it is 16"),
    ],
)
def test_sizes_that_do_not_divide(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        derive_dims(gpt(**changes), VOCAB)
    assert said in str(caught.value)


@given(
    depth=st.integers(1, 64),
    aspect=st.integers(1, 130),
    head_dim=st.integers(2, 256),
    ratio=st.integers(1, 8),
    rounded=st.booleans(),
)
def test_any_request_gives_a_legal_network_or_an_error(
    depth: int, aspect: int, head_dim: int, ratio: int, rounded: bool
) -> None:
    asked = gpt(depth=depth, aspect_ratio=aspect, head_dim=head_dim, gqa_ratio=ratio, round_width=rounded)
    try:
        dims = derive_dims(asked, VOCAB)
    except ConfigError as error:
        assert "model." in str(error)
        return
    assert dims.n_embd == dims.n_head * dims.head_dim and dims.head_dim % 2 == 0
    assert dims.n_head == dims.n_kv_head * ratio and dims.head_dim <= head_dim
    assert dims.n_embd - depth * aspect in range(head_dim if rounded else 1)
