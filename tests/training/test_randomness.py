import torch

from athwe_core.training.randomness import keyed_generator, keyed_rng, keyed_seed


def test_seeds_depend_on_every_part_of_the_key() -> None:
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert keyed_seed(0, "a", 1) == keyed_seed(0, "a", 1)
    assert 0 <= keyed_seed(5) < 2**63


def test_generators_of_one_key_draw_the_same() -> None:
    assert keyed_rng(3, "x").random() == keyed_rng(3, "x").random()
    draws = [torch.rand(2, generator=keyed_generator(3, "x")) for _ in range(2)]
    assert torch.equal(*draws)
