"""The HTTP interface: answers of `Run.recommend`, limits, errors with the field, reloads and an end without loss."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from serve_harness import HeldBack, Running, running

import athwe_core as athwe
from athwe_core.errors import AthweError


def history(run: athwe.Run, user: int) -> tuple[list[str], list[int]]:
    """Raw ids and times of a user."""
    data = run.data
    span = slice(data.offsets[user], data.offsets[user + 1])
    return [data.item_tokens[item] for item in data.item_ids[span]], data.timestamps[span].tolist()


def problem(response: httpx.Response) -> tuple[int, str, str]:
    """Status, field and message of a refusal."""
    (found,) = response.json()["detail"]
    return response.status_code, found["field"], found["message"]


def test_histories_get_the_answers_of_run_recommend(run: athwe.Run, served: Running) -> None:
    users = run.data.user_tokens[:5]
    rows = [
        {"user_id": user, "item_ids": items, "timestamps": times}
        for at, user in enumerate(users)
        for items, times in [history(run, at)]
    ]
    response = served.client.post("/recommend", json={"histories": rows, "k": 4})
    assert response.status_code == 200
    found = response.json()
    assert found["run"] == "demo/athwe/first"
    expected = run.recommend(users, k=4).partition_by("user_id", maintain_order=True)
    for mine, theirs in zip(found["recommendations"], expected, strict=True):
        assert mine["user_id"] == theirs["user_id"][0]
        assert mine["item_ids"] == theirs["item_id"].to_list()
        assert mine["scores"] == pytest.approx(theirs["score"].to_list(), abs=1e-5)
        assert mine["unknown_item_ids"] == []


def test_options_and_unknown_items(run: athwe.Run, served: Running) -> None:
    items, times = history(run, 0)
    tokens = run.data.item_tokens
    allowed = [tokens[3], tokens[8], items[0], "gone"]
    response = served.recommend(([*items, "gone"], [*times, times[-1]]), k=9, exclude_seen=False, allowed=allowed)
    (found,) = response.json()["recommendations"]
    expected = run.recommend(run.data.user_tokens[:1], k=9, exclude_seen=False, items=allowed[:3])
    assert found["item_ids"] == expected["item_id"].to_list()
    assert found["unknown_item_ids"] == ["gone"]
    assert found["user_id"] is None
    body = '{"histories": [{"item_ids": ["\\ud800", "ITEM"], "timestamps": [1, 2]}]}'.replace("ITEM", items[0])
    response = served.client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert response.json()["recommendations"][0]["unknown_item_ids"] == ["\ud800"]  # no text, and no failure


def test_the_framework_answers_as_the_direct_way_does(run: athwe.Run, served: Running) -> None:
    items, times = history(run, 0)
    for path, body in (
        ("/recommend", {"histories": [{"item_ids": items, "timestamps": times}], "k": 3}),
        ("/recommend", {"histories": [{"item_ids": ["gone"], "timestamps": [1]}]}),
        ("/similar", {"item_ids": items[:2], "k": 3}),
    ):
        content = json.dumps(body)
        answers = [
            served.client.post(path, content=content, headers={"Content-Type": kind})
            for kind in ("application/json; charset=utf-8", "application/other+json")  # the second is no direct one
        ]
        assert answers[0].status_code == answers[1].status_code
        assert answers[0].content == answers[1].content


def test_similar_items(run: athwe.Run, served: Running) -> None:
    items = [run.data.item_tokens[7], run.data.item_tokens[2]]
    found = served.client.post("/similar", json={"item_ids": items, "k": 3}).json()
    expected = run.similar_items(items, k=3)
    assert [row["like"] for row in found["similar"]] == items
    assert [item for row in found["similar"] for item in row["item_ids"]] == expected["item_id"].to_list()
    response = served.client.post("/similar", json={"item_ids": [items[0], "gone"]})
    assert problem(response)[:2] == (422, "item_ids.1")


def test_many_clients_at_once_each_get_their_own_answer(run: athwe.Run, served: Running) -> None:
    alone = {user: served.recommend(history(run, user), k=5).json() for user in range(12)}
    before = served.service.batcher.counts.batches
    with ThreadPoolExecutor(12) as pool, httpx.Client(base_url=served.url, timeout=20) as client:

        def ask(user: int) -> Any:
            items, times = history(run, user)
            rows = [{"item_ids": items, "timestamps": times}]
            return client.post("/recommend", json={"histories": rows, "k": 5}).json()

        found = list(pool.map(ask, [user for _ in range(4) for user in range(12)]))
    assert served.service.batcher.counts.batches - before < 48  # some were computed together
    for at, mine in enumerate(found):
        (a,), (b,) = mine["recommendations"], alone[at % 12]["recommendations"]
        assert a["item_ids"] == b["item_ids"]
        np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "histories", "Field required"),
        ({"histories": []}, "histories", "at least 1 item"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "k": 0}, "k", "greater than or equal to 1"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "k": 21}, "k", "must be at most 20, got 21"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "k": "5"}, "k", "valid integer"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "j": 1}, "j", "Extra inputs"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": ["2020"]}]}, "histories.0.timestamps.0", "valid integer"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [True]}]}, "histories.0.timestamps.0", "valid integer"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1e12]}]}, "histories.0.timestamps.0", "valid integer"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [10**13]}]}, "histories.0.timestamps.0", "less than"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": []}]}, "histories.0.timestamps", "one time for each"),
        ({"histories": [{"item_ids": [1.5], "timestamps": [1]}]}, "histories.0.item_ids.0", "valid string"),
        ({"histories": [{"item_ids": ["gone"], "timestamps": [1]}]}, "histories.0.item_ids", "must name items of data"),
        (
            {"histories": [{"item_ids": ["\ud800"], "timestamps": [1]}]},
            "histories.0.item_ids",
            "must name items of data",
        ),
        ({"histories": [{"item_ids": ["ITEM"] * 31, "timestamps": [1] * 31}]}, "histories.0.item_ids", "at most 30"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}] * 9}, "histories", "at most 8 entries, got 9"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "allowed": ["no"]}, "allowed", "none of them"),
        ({"histories": [{"item_ids": ["ITEM"], "timestamps": [1]}], "allowed": []}, "allowed", "at least 1 item"),
        ([1, 2], "", "valid dictionary"),
    ],
)
def test_a_malformed_body_is_refused_with_the_field(
    run: athwe.Run, served: Running, body: Any, field: str, message: str
) -> None:
    content = json.dumps(body).replace("ITEM", run.data.item_tokens[1])
    response = served.client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
    status, where, what = problem(response)
    assert (status, where) == (422, field)
    assert message in what


def test_what_is_no_json_or_too_large(served: Running) -> None:
    post = served.client.post
    assert problem(post("/recommend", content=b"{"))[0] == 422
    assert problem(post("/recommend", content=b"\xff\xfe\x00"))[0] == 422
    assert problem(post("/recommend", content=b"[" * 5000, headers={"Content-Type": "application/json"}))[0] in (
        400,
        422,
    )
    assert problem(post("/recommend", content=b" " * 20_001)) == (413, "", "the body must have at most 20,000 bytes")
    chunks = (b" " * 1000 for _ in range(30))
    assert problem(post("/recommend", content=chunks))[0] == 413
    assert problem(served.client.get("/recommend"))[0] == 405
    assert problem(served.client.get("/nothing"))[:2] == (404, "")
    assert served.errors == []


def test_a_full_queue_is_429_and_who_was_taken_is_answered() -> None:
    source = HeldBack()
    with running(source, max_queue=2) as served, ThreadPoolExecutor(3) as pool:
        under_way = pool.submit(served.recommend, (["a"], [1]))
        assert source.began.acquire(timeout=10)
        waiting = pool.submit(served.recommend, (["a"], [1]), (["b"], [1]))
        while served.service.batcher.num_waiting < 2:
            pass
        response = served.recommend((["c"], [1]))
        assert problem(response) == (429, "", "requests must fit into the queue: 2 of at most 2 wait already, got 1")
        assert response.headers["Retry-After"] == "1"
        source.let(2)
        assert under_way.result(10).json()["recommendations"][0]["item_ids"] == ["a"]
        assert [row["item_ids"] for row in waiting.result(10).json()["recommendations"]] == [["a"], ["b"]]
        assert served.errors == []


def test_who_waits_too_long_gets_503() -> None:
    source = HeldBack()
    with running(source, timeout_seconds=0.05) as served, ThreadPoolExecutor(2) as pool:
        under_way = pool.submit(served.recommend, (["a"], [1]))
        assert source.began.acquire(timeout=10)
        late = pool.submit(served.recommend, (["b"], [1]))
        threading.Timer(0.2, source.let).start()
        assert under_way.result(10).status_code == 200
        assert problem(late.result(10)) == (503, "", "request has waited longer than 0.05 s")


@pytest.mark.parametrize("error", [AthweError("scores", "must not be NaN"), RuntimeError("out of memory")])
def test_a_model_that_fails_is_500_and_the_service_goes_on(error: Exception) -> None:
    source = HeldBack()
    source.error = error
    with running(source) as served:
        source.let(2)
        status, _, message = problem(served.recommend((["a"], [1])))
        assert status == 500
        assert message in ("scores must not be NaN", "an unexpected error happened; the log of the server has it")
        source.error = None
        assert served.recommend((["a"], [1])).status_code == 200
        assert served.client.get("/health").json() == {"status": "ok", "runs": ["held/back/1"], "waiting": 0}


def test_a_service_that_stops_answers_who_was_taken() -> None:
    source = HeldBack()
    with ThreadPoolExecutor(1) as pool:
        with running(source) as served:
            client = httpx.Client(base_url=served.url, timeout=20)
            body = {"histories": [{"item_ids": ["a"], "timestamps": [1]}]}
            under_way = pool.submit(client.post, "/recommend", json=body)
            assert source.began.acquire(timeout=10)
            threading.Timer(0.3, source.let).start()  # after the server was told to stop
        assert under_way.result(10).json()["recommendations"][0]["item_ids"] == ["a"]
        client.close()
        assert not served.service.batcher.is_open
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/health")


def test_numbers_for_prometheus(served: Running) -> None:
    served.client.get("/nothing-there")
    response = served.client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.text.splitlines()
    assert 'athwe_run{run="demo/athwe/first"} 1.0' in lines
    assert any(line.startswith('athwe_http_requests_total{path="other",status="404"}') for line in lines)
    assert any(line.startswith("athwe_batches_total ") for line in lines)
    assert not any("nothing-there" in line for line in lines)


def test_the_description_works_without_another_site(served: Running) -> None:
    page = served.client.get("/docs").text
    assert "http://" not in page.replace("http://127.0.0.1:8000/", "").replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    for path in ("POST /recommend", "POST /similar", "GET /health", "GET /metrics"):
        assert path in page
    assert "histories[].timestamps" in page
    assert "/try/" not in served.client.get("/openapi.json").text
