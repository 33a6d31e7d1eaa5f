"""Trying runs by hand: users, items by title, recommendations with reasons."""

from pathlib import Path

import pytest

import athwe_core as athwe
from athwe_core.analysis.case_study.loaded_run import CaseRuns, open_runs
from athwe_core.errors import DataError
from athwe_core.serving.explorer import Explorer


class Pictures:
    """One item has a picture; counts what is decoded."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
        self.decoded.append(item_id)
        return f"{item_id} {size}".encode()


@pytest.fixture(scope="module")
def opened(run: athwe.Run) -> CaseRuns:
    return open_runs([run.folder], run.folder.path.parents[3] / "prepared")


@pytest.fixture(scope="module")
def explorer(opened: CaseRuns) -> Explorer:
    return Explorer(opened)


def test_search_finds_every_word_anywhere_most_popular_first(run: athwe.Run, explorer: Explorer) -> None:
    counts: dict[str, int] = dict.fromkeys(run.data.item_tokens[1:], 0)
    for item in run.data.item_ids:
        counts[run.data.item_tokens[item]] += 1
    everything = explorer.search("", limit=1000)
    assert len(everything) == run.data.num_items
    popularity = [counts[item["item_id"]] for item in everything]
    assert popularity == sorted(popularity, reverse=True)
    title = everything[5]["title"]
    first, *_, last = title.split()
    found = explorer.search(f"{last.upper()} {first.lower()[:3]}", limit=1000)
    assert title in [item["title"] for item in found]
    expected = [
        item["item_id"]
        for item in everything
        if all(
            word in f"{item['title']} {item['item_id']} {item['category']}".lower()
            for word in (last.lower(), first.lower()[:3])
        )
    ]
    assert [item["item_id"] for item in found] == expected
    assert explorer.search("no such words", limit=5) == []
    assert len(explorer.search("", limit=3)) == 3


def test_users_by_the_beginning_of_their_id(run: athwe.Run, explorer: Explorer) -> None:
    expected = [user for user in run.data.user_tokens if user.startswith("1")]
    assert explorer.users("1", limit=5) == expected[:5]
    assert explorer.users("nobody") == []


def test_a_user_has_the_history_before_the_held_out_item(run: athwe.Run, explorer: Explorer) -> None:
    user = run.data.user_tokens[3]
    case = explorer.user(user)
    span = slice(run.data.offsets[3], run.data.offsets[4])
    items, times = run.data.item_ids[span].tolist(), run.data.timestamps[span].tolist()
    assert (case.item_ids, case.timestamps) == (items[:-1], times[:-1])
    assert case.target == (items[-1], times[-1])
    assert explorer.user().user in run.data.user_tokens
    with pytest.raises(DataError, match=r"^--user must be one of the 150 users of demo, got 'nobody'"):
        explorer.user("nobody")


def test_without_held_out_items_the_whole_history(run: athwe.Run, opened: CaseRuns) -> None:
    whole = Explorer(CaseRuns(opened.runs, run.data.without_held_out()))
    case = whole.user(run.data.user_tokens[3])
    assert case.item_ids == run.data.item_ids[run.data.offsets[3] : run.data.offsets[4]].tolist()
    assert case.target is None
    assert whole.user().user in run.data.user_tokens


def test_recommendations_are_those_of_the_run_and_any_item_is_explained(run: athwe.Run, explorer: Explorer) -> None:
    tokens = run.data.item_tokens
    items, times = [tokens[3], tokens[9], tokens[4]], [1_400_000_000, 1_400_100_000, 1_400_200_000]
    rows = {"user_id": ["me"] * 3, "item_id": items, "timestamp": times}
    expected = run.recommend(histories=rows, k=6)["item_id"].to_list()
    plain = explorer.request(items, times, k=6, exclude_seen=True)
    chosen = explorer.request(items, times, k=6, exclude_seen=True, explained=expected[4])
    known = explorer.request(items, times, k=6, exclude_seen=True, target=(expected[2], times[-1] + 5))
    for study, subject, rank in zip(
        explorer.answer([plain, chosen, known]), (expected[0], expected[4], expected[2]), (1, 5, 3), strict=True
    ):
        (found,) = study["recommendations"].values()
        assert [row["item_id"] for row in found] == expected
        (why,) = study["why"].values()
        assert why["subject"]["item_id"] == subject
        assert why["rank"] == rank
        assert why["subject"].get("is_chosen", False) is (subject == expected[4])


@pytest.mark.parametrize(
    ("items", "times", "more", "message"),
    [
        ([], [], {}, "^item_ids must name an item at least$"),
        (["gone"], [1], {}, "^item_ids must name items of data set demo, got 'gone'$"),
        ([1, 2], [5], {}, "^timestamps must have one time for each of the 2 items"),
        ([1, 2], [5, 4], {}, "^timestamps must be unix seconds in .*, in time order"),
        ([1], [5], {"target": ("gone", 6)}, "^target must name items"),
        ([1], [5], {"explained": "gone"}, "^explained must name items"),
    ],
)
def test_a_wrong_request_names_its_field(
    run: athwe.Run, explorer: Explorer, items: list[object], times: list[int], more: dict[str, object], message: str
) -> None:
    ids = [run.data.item_tokens[item] if isinstance(item, int) else str(item) for item in items]
    with pytest.raises(DataError, match=message):
        explorer.request(ids, times, k=1, exclude_seen=True, **more)  # type: ignore[arg-type]


def test_a_picture_is_decoded_once(opened: CaseRuns, tmp_path: Path) -> None:
    pictures = Pictures()
    explorer = Explorer(opened, pictures)
    assert [explorer.picture("a"), explorer.picture("a")] == [b"a 112", b"a 112"]
    assert pictures.decoded == ["a"]
    assert Explorer(opened).picture("a") is None
