"""Fetching from a server that cuts off, stalls, lies, redirects, refuses, changes the file, and sends web pages."""

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_server import Server, content_range

from athwe_core.data.sources import fetch
from athwe_core.data.sources.fetch import Fetcher, Patience
from athwe_core.data.sources.part_file import PartFile
from athwe_core.errors import ConfigError, DataError

QUICK = Patience(seconds=0.3, retries=2, backoff_seconds=0.01, redirects=3)
CONTENT = random.Random(0).randbytes(500_000)
HTML = b"<!DOCTYPE html><html><head><title>Please log in</title></head></html>"


class World:
    """A server with `/a.bin`, a folder, and what was noted."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.notes = server, folder, []  # type: ignore[var-annotated]
        self.target = folder / "a.bin"
        server.files["/a.bin"] = CONTENT

    def fetch(self, path: str = "/a.bin", patience: Patience = QUICK, **arguments: Any) -> bytes:
        with Fetcher(patience, self.notes.append) as fetcher:
            return fetcher.fetch(self.server.url + path, self.target, **arguments).read_bytes()

    def ranges(self) -> list[str | None]:
        return [wanted for method, _, wanted in self.server.requests if method == "GET"]


@pytest.fixture
def world(server: Server, tmp_path: Path) -> World:
    return World(server, tmp_path)


def test_a_file_comes_whole_and_its_size_is_known_before(world: World) -> None:
    seen: list[tuple[int, int]] = []
    with Fetcher(QUICK) as fetcher:
        assert fetcher.size(world.server.url + "/a.bin") == len(CONTENT)
    assert world.fetch(progress=lambda done, total: seen.append((done, total))) == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert world.notes == []
    assert not world.target.exists()


def test_a_connection_that_is_cut_is_continued(world: World) -> None:
    world.server.cut("/a.bin", 100_000, times=3)  # more often than there are retries, but each brings something new
    assert world.fetch() == CONTENT
    assert world.ranges() == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert len(world.notes) == 3
    assert "trying again in 0 s" in world.notes[0]


def test_a_stall_times_out_and_is_continued(world: World) -> None:
    world.server.stall("/a.bin", 200_000)
    assert world.fetch() == CONTENT
    assert world.ranges() == [None, "bytes=200000-"]
    assert "the server sends nothing" in world.notes[0]


def test_a_later_download_continues_an_earlier_one(world: World) -> None:
    world.server.cut("/a.bin", 300_000)
    with pytest.raises(DataError, match=r"1 attempts\)\. Run the command again: it continues at 0\.3 MB"):
        world.fetch(patience=Patience(retries=0))
    assert world.fetch() == CONTENT
    assert world.ranges() == [None, "bytes=300000-"]


def test_a_server_that_promises_more_than_it_has_is_given_up(world: World) -> None:
    world.server.answers["/a.bin"] = lambda handler, _: handler.send(200, b"x" * 100, length=1000)
    with pytest.raises(DataError, match=r"a\.bin cannot be fetched \(.*; 3 attempts\)"):
        world.fetch()


def test_a_server_without_ranges_sends_the_file_again(world: World) -> None:
    cut = len(CONTENT) // 2

    def answer(handler: Any, count: int) -> None:
        handler.send(200, CONTENT[:cut] if count == 1 else CONTENT, length=len(CONTENT))

    world.server.answers["/a.bin"] = answer
    assert world.fetch() == CONTENT
    assert world.notes[-1].endswith("the server sends the file from its beginning")


def test_a_file_that_has_changed_is_fetched_from_its_beginning(world: World) -> None:
    world.server.cut("/a.bin", 100)
    with pytest.raises(DataError):
        world.fetch(patience=Patience(retries=0))
    world.server.files["/a.bin"], world.server.tags["/a.bin"] = CONTENT[::-1], '"second"'
    assert world.fetch() == CONTENT[::-1]


def test_a_part_of_a_file_of_another_length_is_thrown_away(world: World) -> None:
    world.server.cut("/a.bin", 100)
    with pytest.raises(DataError):
        world.fetch(patience=Patience(retries=0))
    longer = CONTENT + b"more"

    def answer(handler: Any, count: int) -> None:  # a server that does not look at If-Range
        if handler.headers.get("Range"):
            handler.send(206, longer[100:], Content_Range=content_range(100, len(longer)))
        else:
            handler.send(200, longer)

    world.server.answers["/a.bin"] = answer
    assert world.fetch() == longer
    assert "the file has changed since its first part was fetched" in world.notes[0]


def test_a_part_of_another_address_is_not_continued(world: World) -> None:
    world.server.cut("/a.bin", 100)
    with pytest.raises(DataError):
        world.fetch(patience=Patience(retries=0))
    world.server.files["/b.bin"] = CONTENT[::-1]
    assert world.fetch("/b.bin") == CONTENT[::-1]
    assert world.ranges() == [None, None]


@pytest.mark.parametrize("damage", ["{", "[]", '{"url": 1}', '{"url": "URL", "version": 3, "total": "x"}'])
def test_a_damaged_state_begins_anew(world: World, damage: str) -> None:
    part = PartFile(world.target)
    part.path.write_bytes(b"wrong")
    world.target.with_name("a.bin.part.json").write_text(damage.replace("URL", world.server.url + "/a.bin"))
    assert world.fetch() == CONTENT


def test_a_part_that_is_whole_already_is_taken(world: World) -> None:
    assert world.fetch() == CONTENT
    assert world.fetch() == CONTENT
    assert world.ranges() == [None, f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_begins_anew(world: World) -> None:
    assert world.fetch() == CONTENT
    with PartFile(world.target).path.open("ab") as file:
        file.write(b"more")
    assert world.fetch() == CONTENT
    assert "does not fit any more" in world.notes[0]


def test_a_busy_server_is_asked_again_when_it_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)

    def answer(handler: Any, count: int) -> None:
        if count <= 2:
            handler.send(503, **({"Retry_After": "7"} if count == 1 else {"Retry_After": "7000"}))
        else:
            world.server.answer(handler, count)

    world.server.answers["/a.bin"] = answer
    assert world.fetch() == CONTENT
    assert waits == [7.0, 60.0]


def test_a_missing_file_is_asked_for_once(world: World) -> None:
    for ask in (lambda: world.fetch("/none.bin"), lambda: Fetcher(QUICK).size(world.server.url + "/none.bin")):
        with pytest.raises(DataError, match=r"none\.bin cannot be fetched \(status 404\)\. It may have moved"):
            ask()
    assert [method for method, _, _ in world.server.requests] == ["GET", "HEAD"]


def test_a_server_that_answers_no_head_request_has_an_unknown_size(world: World) -> None:
    world.server.answers["/a.bin"] = lambda handler, _: handler.send(405)
    with Fetcher(QUICK) as fetcher:
        assert fetcher.size(world.server.url + "/a.bin") is None


def test_a_host_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with Fetcher(QUICK) as fetcher, pytest.raises(DataError, match=r"; 3 attempts\)\. Try again later"):
        fetcher.size("http://127.0.0.1:9/a.bin")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/gzip"])
def test_a_web_page_is_not_taken_for_the_file(world: World, kind: str) -> None:
    world.server.answers["/a.bin"] = lambda handler, _: handler.send(200, HTML, Content_Type=kind)
    with pytest.raises(DataError, match=r"is a web page \(Please log in\) and not the file\. Open the address"):
        world.fetch()
    assert list(world.folder.iterdir()) == []


def test_a_web_page_is_noticed_before_fetching(world: World) -> None:
    world.server.answers["/a.bin"] = lambda handler, _: handler.send(200, HTML, Content_Type="text/html")
    with Fetcher(QUICK) as fetcher, pytest.raises(DataError, match="is a web page and not the file"):
        fetcher.size(world.server.url + "/a.bin")


def redirect(location: str) -> Callable[[Any, int], None]:
    return lambda handler, _: handler.send(302, Location=location)


def test_redirects_are_followed_and_reported_once(world: World) -> None:
    world.server.answers |= {"/old.bin": redirect("/moved.bin"), "/moved.bin": redirect("a.bin")}
    world.server.cut("/a.bin", 100)
    assert world.fetch("/old.bin") == CONTENT
    told = [note for note in world.notes if "redirects" in note]
    url = world.server.url
    assert told == [f"{url}/old.bin redirects to {url}/moved.bin", f"{url}/moved.bin redirects to {url}/a.bin"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/again.bin", "redirects more than 3 times"),
        ("file:///etc/passwd", r"must only redirect to https addresses, got 'file:/etc/passwd'"),
        ("http://x:99999/", r"must only redirect to https addresses, got 'http://x:99999/'"),
        ("http://x:y/", "Invalid URL in location header"),
    ],
)
def test_redirects_that_are_refused(world: World, location: str, message: str) -> None:
    world.server.answers["/again.bin"] = redirect(location)
    with pytest.raises(DataError, match=message):
        world.fetch("/again.bin")


@pytest.mark.parametrize(
    ("first", "target", "message"),
    [
        ("https://93.184.216.34/a", "http://93.184.216.34/a", "must only redirect to https"),
        ("https://93.184.216.34/a", "https://192.168.0.1/a", "must not redirect to a private network"),
        ("http://93.184.216.34/a", "http://127.0.0.1/a", "must not redirect to a private network"),
    ],
)
def test_a_redirect_neither_drops_encryption_nor_enters_a_private_network(
    first: str, target: str, message: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": target}) if str(request.url) == first else httpx.Response(200)

    with Fetcher(QUICK) as fetcher:
        fetcher._client = httpx.Client(transport=httpx.MockTransport(answer))
        with pytest.raises(DataError, match=message):
            fetcher.size(first)


def test_a_full_disk_is_noticed_before_fetching(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(1000, 900, 100)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"must have room for 0\.5 MB, got '0\.0 MB'\. Free some, or choose"):
        world.fetch()


def test_what_is_known_about_a_part_is_plain_json(world: World) -> None:
    world.fetch()
    known = json.loads(world.target.with_name("a.bin.part.json").read_text())
    assert known == {"url": world.server.url + "/a.bin", "version": '"first"', "total": len(CONTENT)}


def test_without_httpx_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"not installed\. Run: pip install 'athwe\[download\]'"):
        Fetcher()


def test_a_proxy_that_cannot_be_used_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    with pytest.raises(
        ConfigError, match=r"the proxy of the environment cannot be used \(.*ftp.*Name a proxy with http"
    ):
        Fetcher()
