"""Requests with raw ids: the answers of `Run.recommend`, alone and in batches, and errors that name the field."""

import numpy as np
import polars as pl
import pytest

import athwe_core as athwe
from athwe_core.errors import AthweError, DataError
from athwe_core.serving.engine import Engine, Ranked, RecommendRequest
from athwe_core.serving.trained_model import TrainedModel


@pytest.fixture(scope="module")
def engine(trained: TrainedModel) -> Engine:
    return Engine(trained)


def history(run: athwe.Run, user: int) -> tuple[list[str], list[int]]:
    """Raw ids and times of a user."""
    data = run.data
    span = slice(data.offsets[user], data.offsets[user + 1])
    return [data.item_tokens[item] for item in data.item_ids[span]], data.timestamps[span].tolist()


def ranked(frame: pl.DataFrame) -> list[Ranked]:
    """What `Run.recommend` and `Run.similar_items` return, as the engine does."""
    parts = frame.partition_by(frame.columns[0], maintain_order=True)
    return [Ranked(part["item_id"].to_list(), part["score"].to_list()) for part in parts]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_batch_of_all_users_equals_run_recommend_exactly(run: athwe.Run, engine: Engine, exclude_seen: bool) -> None:
    users = range(run.data.num_users)
    requests = [engine.recommend_request(*history(run, user), k=7, exclude_seen=exclude_seen) for user in users]
    assert engine.answer(requests) == ranked(run.recommend(k=7, exclude_seen=exclude_seen))


def test_alone_and_in_a_mixed_batch_each_gets_its_own_answer(run: athwe.Run, engine: Engine) -> None:
    """With other k, allowed items and seen items side by side; a product of other shape differs in the last bit."""
    tokens = run.data.item_tokens
    allowed = engine.allowed([tokens[9], tokens[3], "gone", tokens[12], tokens[9]])
    assert allowed == (3, 9, 12)
    requests = [
        engine.recommend_request(*history(run, 0), k=3),
        engine.similar_request(tokens[7], k=2),
        engine.recommend_request(*history(run, 1), k=50, exclude_seen=False, allowed=allowed),
        engine.recommend_request(*history(run, 2), k=5, exclude_seen=False),
        engine.similar_request(tokens[2], k=4, allowed=allowed),
        engine.recommend_request(*history(run, 3), k=2, allowed=allowed),
    ]
    users = run.data.user_tokens
    items = [tokens[item] for item in allowed]
    expected = [
        *ranked(run.recommend(users[:1], k=3)),
        *ranked(run.similar_items([tokens[7]], k=2)),
        *ranked(run.recommend(users[1:2], k=3, exclude_seen=False, items=items)),
        *ranked(run.recommend(users[2:3], k=5, exclude_seen=False)),
        None,
        *ranked(run.recommend(users[3:4], k=2, items=items)),
    ]
    together, alone = engine.answer(requests), [engine.answer([request])[0] for request in requests]
    for mine, single, theirs in zip(together, alone, expected, strict=True):
        assert mine.item_ids == single.item_ids
        assert mine.scores == pytest.approx(single.scores, abs=1e-5)
        if theirs is not None:
            assert mine.item_ids == theirs.item_ids
            assert mine.scores == pytest.approx(theirs.scores, abs=1e-5)
    assert set(together[4].item_ids) <= set(items)


def test_a_history_is_put_in_time_order_and_unknown_items_are_reported(run: athwe.Run, engine: Engine) -> None:
    tokens = run.data.item_tokens
    found = engine.recommend_request([tokens[4], "gone", tokens[8], tokens[2]], [30, 5, 10, 30], k=1)
    assert isinstance(found, RecommendRequest)
    assert found.items.tolist() == [8, 4, 2]
    assert found.timestamps.tolist() == [10, 30, 30]
    assert found.unknown == ("gone",)


def test_more_items_than_there_are(run: athwe.Run, engine: Engine) -> None:
    """Fewer come back: those that are left."""
    items, times = history(run, 0)
    (found,) = engine.answer([engine.recommend_request(items, times, k=1000)])
    assert len(found.item_ids) == run.data.num_items - len(set(items))
    assert not set(found.item_ids) & set(items)
    assert np.all(np.diff(found.scores) <= 0)


@pytest.mark.parametrize(
    ("items", "times", "options", "message"),
    [
        (["a"], [1, 2], {}, r"^timestamps must have one time for each of the 1 items, got 2$"),
        (["a"], [-1], {}, r"^timestamps must be unix seconds in 0\.\.253402300799, got -1\. Divide milliseconds"),
        (["a"], [10**13], {}, r"^timestamps must be unix seconds"),
        (["nope", "no"], [1, 2], {}, r"^item_ids must name items of data set demo.*got \['nope', 'no'\]$"),
        ([], [], {}, r"^item_ids must name items"),
        (["a"], [1], {"k": 0}, r"^k must be at least 1, got 0$"),
    ],
)
def test_a_wrong_request_names_its_field(
    engine: Engine, items: list[str], times: list[int], options: dict[str, int], message: str
) -> None:
    with pytest.raises(AthweError, match=message):
        engine.recommend_request(items, times, **{"k": 1, **options})


def test_unknown_items_alone_are_an_error(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"^allowed must name items of data set demo, and it has none of them"):
        engine.allowed(["gone"])
    with pytest.raises(DataError, match=r"^item_ids must name items"):
        engine.similar_request("gone", k=1)
