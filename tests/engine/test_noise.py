import torch

from nanochat.engine.noise import gumbel, mix, stream_key


def test_mix_is_a_bijection_and_the_same_on_ints() -> None:
    ids = torch.arange(100_000)
    mixed = mix(ids)
    assert len(mixed.unique()) == len(ids) and int(mixed.min()) >= 0 and int(mixed.max()) < 2**32
    assert mixed[:50].tolist() == [mix(i) for i in range(50)]


def test_every_bit_of_the_input_turns_half_of_the_output() -> None:
    words = torch.randint(2**32, (2000,), generator=torch.Generator().manual_seed(0))
    for bit in range(32):
        turned = mix(words) ^ mix(words ^ (1 << bit))
        share = sum(((turned >> i) & 1).float().mean().item() for i in range(32)) / 32
        assert 0.48 < share < 0.52, bit


def test_moments_are_those_of_gumbel_numbers() -> None:
    noise = gumbel(torch.tensor([stream_key(1, s) for s in range(8)]), torch.arange(8), 50_000)
    assert noise.isfinite().all()
    assert abs(noise.mean().item() - 0.5772) < 0.01 and abs(noise.var().item() - 1.6449) < 0.02
    assert abs(torch.corrcoef(noise) - torch.eye(8)).max() < 0.02


def test_streams_and_positions_are_independent() -> None:
    keys = torch.tensor([stream_key(seed, sample) for seed in (0, 1, -1, 2**62) for sample in range(3)])
    assert len(keys.unique()) == 12 and int(keys.min()) >= 0
    here, later = (gumbel(keys, torch.full((12,), p), 20_000) for p in (5, 6))
    both = torch.cat([here, later])
    assert abs(torch.corrcoef(both) - torch.eye(24)).max() < 0.04


def test_a_row_is_the_same_in_any_batch() -> None:
    keys, positions = torch.tensor([3, 4, 5]), torch.tensor([9, 9, 2])
    assert torch.equal(gumbel(keys, positions, 100)[1], gumbel(keys[1:2], positions[1:2], 100)[0])
