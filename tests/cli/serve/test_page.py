"""What the page to try runs asks the service for."""

import html
import re
from pathlib import Path

import pytest
from PIL import Image
from serve_harness import Running, running

import athwe_core as athwe
from athwe_core.data.features.image_files import ImageSource
from athwe_core.serving.service import RunSource


def wish(run: athwe.Run, *numbers: int, **options: object) -> dict[str, object]:
    """A history of items by number, a day apart."""
    tokens = run.data.item_tokens
    events = [{"item_id": tokens[item], "timestamp": 1_400_000_000 + 86_400 * at} for at, item in enumerate(numbers)]
    return {"history": events, "k": 5, **options}


def test_the_page_is_one_file_that_loads_only_from_its_own_service(served: Running) -> None:
    response = served.client.get("/")
    assert response.headers["Content-Type"].startswith("text/html")
    page = html.unescape(response.text)
    assert "img-src 'self'; connect-src 'self'" in page
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "athwe/first" in page


def test_items_and_users(run: athwe.Run, served: Running) -> None:
    get = served.client.get
    title = run.data.item_table()["title"][4]
    found = get("/try/items", params={"q": title}).json()["items"]
    assert title in [item["title"] for item in found]
    assert found[0].keys() == {"item_id", "title", "category", "picture", "initials"}
    assert len(get("/try/items").json()["items"]) == 20
    assert get("/try/users", params={"q": run.data.user_tokens[3]}).json()["users"][0] == run.data.user_tokens[3]
    told = get("/try/user", params={"id": run.data.user_tokens[3]}).json()
    count = int(run.data.offsets[4] - run.data.offsets[3])
    assert len(told["history"]) == count - 1
    assert told["target"]["timestamp"] == int(run.data.timestamps[run.data.offsets[4] - 1])
    assert get("/try/user").json()["user"] in run.data.user_tokens
    assert get("/try/user", params={"id": "nobody"}).status_code == 422
    assert get("/try/item", params={"id": run.data.item_tokens[2]}).json()["item_id"] == run.data.item_tokens[2]
    assert get("/try/item", params={"id": "gone"}).status_code == 422
    assert get("/try/items", params={"q": "x" * 300}).status_code == 422


def test_recommendations_with_reasons_are_those_of_the_run(run: athwe.Run, served: Running) -> None:
    post = served.client.post
    tokens = run.data.item_tokens
    plain = post("/try/recommendations", json=wish(run, 3, 9, 4)).text
    shown = re.findall(r'<li[^>]* data-item="([^"]*)"', plain)
    rows = {"user_id": ["me"] * 3, "item_id": [tokens[i] for i in (3, 9, 4)]}
    rows |= {"timestamp": [1_400_000_000 + 86_400 * at for at in range(3)]}  # type: ignore[dict-item]
    assert shown == run.recommend(histories=rows, k=5)["item_id"].to_list()
    for panel in ("Influence of each item", "Temporal gates", "Interactive gates", "Attention of the last position"):
        assert panel in plain
    assert "The first recommendation, rank 1" in plain
    chosen = post("/try/recommendations", json=wish(run, 3, 9, 4, explained=shown[2])).text
    assert "The item you chose, rank 3" in chosen
    target = {"item_id": shown[1], "timestamp": 1_500_000_000}
    known = post("/try/recommendations", json=wish(run, 3, 9, 4, target=target)).text
    assert "What came next has <b>rank 2</b>" in known
    assert "came next</span>" in known


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"history": []}, "history"),
        ({"history": [{"item_id": "gone", "timestamp": 1}]}, "item_ids"),
        ({"history": [{"item_id": "a", "timestamp": -1}]}, "history.0.timestamp"),
        ({"history": [{"item_id": "a", "timestamp": 1}], "k": 51}, "k"),
    ],
)
def test_a_malformed_wish_is_refused_with_the_field(served: Running, body: dict[str, object], field: str) -> None:
    response = served.client.post("/try/recommendations", json=body)
    assert response.status_code == 422
    assert response.json()["detail"][0]["field"] == field


def test_pictures_where_there_are_any(run: athwe.Run, source: RunSource, tmp_path: Path) -> None:
    tokens = run.data.item_tokens
    Image.new("RGB", (300, 200), "red").save(tmp_path / f"{tokens[1]}.png")
    (tmp_path / f"{tokens[2]}.png").write_text("no picture")
    pictures = ImageSource.open(tmp_path)
    with running(RunSource(source.runs, None, source.runs_dir, source.prepared_dir, images=pictures)) as served:
        get = served.client.get
        item = get("/try/item", params={"id": tokens[1]}).json()
        response = get(f"/{item['picture']}")
        assert response.headers["Content-Type"] == "image/jpeg"
        assert response.content.startswith(b"\xff\xd8")
        broken = get("/try/item", params={"id": tokens[2]}).json()
        assert get(f"/{broken['picture']}").status_code == 404
        assert get("/try/item", params={"id": tokens[3]}).json()["picture"] is None
        assert get("/try/picture", params={"item": "../../etc/passwd"}).status_code == 404


def test_without_the_page_the_address_leads_to_the_description(source: RunSource) -> None:
    plain = RunSource(source.runs, None, source.runs_dir, source.prepared_dir, with_page=False)
    with running(plain) as served:
        response = served.client.get("/")
        assert (response.status_code, response.headers["Location"]) == (307, "/docs")
        assert served.client.get("/try/items").status_code == 404
