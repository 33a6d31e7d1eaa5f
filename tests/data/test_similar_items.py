"""Similar items: the recorded similarities of the published code, a case by hand, blocks."""

from pathlib import Path

import numpy as np
import pytest

from athwe_core.data import similar_items as module
from athwe_core.data.similar_items import item_similarity, most_similar_items
from athwe_core.models.golden import Golden

GOLDEN = Golden.read(Path(__file__).parents[1] / "golden" / "ticoserec.npz")


def recorded_interactions() -> tuple[np.ndarray, np.ndarray]:
    lengths, items = GOLDEN["in.lengths"].numpy(), GOLDEN["in.full_items"].numpy()
    users = np.repeat(np.arange(len(lengths)), lengths)
    return users, np.concatenate([row[:n] for row, n in zip(items, lengths, strict=True)])


@pytest.mark.parametrize("block", [7, 4096])
def test_similarities_are_those_of_the_published_code(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ITEMS_AT_ONCE", block)
    expected = GOLDEN["out.offline_similarity"].numpy()
    users, items = recorded_interactions()
    np.testing.assert_allclose(item_similarity(users, items, num_item_rows=31).toarray(), expected, atol=1e-6)
    nearest, best = most_similar_items(users, items, num_item_rows=31)
    has_one = expected.max(axis=1) > 0
    np.testing.assert_allclose(best, expected.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(expected[np.arange(31), nearest][has_one], best[has_one], atol=1e-6)
    assert nearest[~has_one].tolist() == np.flatnonzero(~has_one).tolist()


def test_similar_items_by_hand() -> None:
    """User 0 has 1, 1 and 2; user 1 has 1, 2 and 3; user 2 has 4 alone."""
    users, items = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([1, 1, 2, 1, 2, 3, 4])
    nearest, best = most_similar_items(users, items, num_item_rows=5)
    assert nearest.tolist() == [0, 2, 1, 1, 4]
    assert best[1] == pytest.approx((1 / np.log(3) + 1 / np.log(4)) / 2)
    assert best[3] == pytest.approx(1 / np.log(4) / 2**0.5)
    assert best[4] == 0
