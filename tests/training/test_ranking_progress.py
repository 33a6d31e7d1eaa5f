"""Progress of a ranking: one sentence per minute with the time left, and a stop on request."""

import pytest

from athwe_core.training import ranking_progress
from athwe_core.training.ranking_progress import RankingProgress, StopRanking


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(ranking_progress.time, "monotonic", lambda: now[0])
    return now


def test_one_sentence_per_minute(clock: list[float]) -> None:
    sentences: list[str] = []
    report = RankingProgress("validation", sentences.append)
    for seconds, done in ((159, 500), (160, 1000), (200, 2000), (221, 2500), (400, 5000)):
        clock[0] = seconds
        report(done, 5000)
    assert sentences == [
        "validation: 1,000 of 5,000 users ranked, 240 s left",  # 60 s for 1,000: 4 times as long for the rest
        "validation: 2,500 of 5,000 users ranked, 121 s left",  # 121 s for one half
    ]


def test_a_short_ranking_is_silent(clock: list[float]) -> None:
    sentences: list[str] = []
    report = RankingProgress("test", sentences.append)
    clock[0] += 59
    report(10, 20)
    report(20, 20)
    assert sentences == []


def test_it_stops_on_request_before_the_last_block_only(clock: list[float]) -> None:
    report = RankingProgress("test", lambda _: None, should_stop=lambda: True)
    with pytest.raises(StopRanking):
        report(10, 20)
    report(20, 20)
