from concurrent.futures import ThreadPoolExecutor

import torch

from athwe_core.nn.dropout import random_bytes
from athwe_core.training.randomness import keyed_generator, keyed_rng, keyed_seed, seeded_dropout


def test_seeds_depend_on_every_part_of_the_key() -> None:
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert keyed_seed(0, "a", 1) == keyed_seed(0, "a", 1)
    assert 0 <= keyed_seed(5) < 2**63


def test_generators_of_one_key_draw_the_same() -> None:
    assert keyed_rng(3, "x").random() == keyed_rng(3, "x").random()
    draws = [torch.rand(2, generator=keyed_generator(3, "x")) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_seeded_step_leaves_the_default_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded_dropout(11):
        drawn = torch.rand(3), random_bytes(8)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded_dropout(11):
        assert torch.equal(torch.rand(3), drawn[0])
        assert torch.equal(random_bytes(8), drawn[1])


def test_steps_that_overlap_in_threads_leave_the_default_generator_as_it_was() -> None:
    """The first to begin is the first to end, so that it may not restore what the second one needs."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = seeded_dropout(1), seeded_dropout(2)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        one.submit(first.__enter__).result()
        other.submit(second.__enter__).result()
        drawn = [pool.submit(random_bytes, 8).result() for pool in (one, other)]
        one.submit(first.__exit__, None, None, None).result()
        other.submit(second.__exit__, None, None, None).result()
    assert torch.equal(torch.get_rng_state(), before)
    for seed, found in zip((1, 2), drawn, strict=True):
        with seeded_dropout(seed):
            assert torch.equal(random_bytes(8), found)
