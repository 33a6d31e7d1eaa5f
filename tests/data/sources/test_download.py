"""Data sets of every collection from a local server to a prepared version; damage, checksums and what is there already."""

import dataclasses
import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from faulty_server import Server

from athwe_core.data.prepare import prepare
from athwe_core.data.sources.download import (
    CHECKSUMS,
    ORIGIN,
    DownloadedFile,
    plan_download,
    read_checksums,
    run_download,
)
from athwe_core.data.sources.fetch import Fetcher, Patience
from athwe_core.data.sources.table import DataSource, known_sources
from athwe_core.errors import DataError
from athwe_core.locks import held
from athwe_core.safe_write import file_hash

QUICK = Patience(seconds=1.0, retries=0)
START = 1_000_000_000
ROWS = [(user, (user + step) % 7, START + 100 * user + step) for user in range(8) for step in range(6)]
"""8 users take 6 of 7 items each, so that every item has at least 5 interactions."""


def lines(objects: list[dict[str, object]], *, as_literals: bool = False) -> bytes:
    return gzip.compress("".join(f"{each if as_literals else json.dumps(each)}\n" for each in objects).encode())


def table(header: str, row: str) -> bytes:
    """Ratings, each as `row` with user, item and time in place of its fields."""
    return (header + "".join(row.format(user=u + 1, item=i + 1, time=t) + "\n" for u, i, t in ROWS)).encode()


def reviews(**extra: object) -> bytes:
    found = [{"reviewerID": f"A{u}", "asin": f"B{i}", "unixReviewTime": t, "overall": 5.0, **extra} for u, i, t in ROWS]
    return lines(found)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as found:
        for name, content in members.items():
            found.writestr(f"folder/{name}", content)
    return buffer.getvalue()


TITLES = [f"Tóy {item + 1}" for item in range(7)]
META = [{"asin": f"B{item}", "title": TITLES[item]} for item in range(7)]
META_2023 = [{"parent_asin": f"B{item}", "title": TITLES[item]} for item in range(7)]
CSV_2023 = gzip.compress(
    b"user_id,parent_asin,rating,timestamp\n" + "".join(f"A{u},B{i},5.0,{t}000\n" for u, i, t in ROWS).encode()
)
ITEM_100K = "".join(f"{i + 1}|{title}|01-Jan-1995||http://x|{'0|' * 18}1\n" for i, title in enumerate(TITLES))
MOVIES_DAT = "".join(f"{i + 1}::{title}::Western\n" for i, title in enumerate(TITLES))
MOVIES_CSV = "movieId,title,genres\n" + "".join(f'{i + 1},"{title}",Western\n' for i, title in enumerate(TITLES))
DATA_SETS: dict[str, dict[str, bytes]] = {
    "Beauty": {
        "reviews_Beauty_5.json.gz": reviews(helpful=[0, 0]),
        "meta_Beauty.json.gz": lines(META, as_literals=True),
    },
    "Software-2018": {"Software_5.json.gz": reviews(verified=True), "meta_Software.json.gz": lines(META)},
    "Software-2023": {"Software.csv.gz": CSV_2023, "meta_Software.jsonl.gz": lines(META_2023)},
    "Software-2023-all": {
        "Software.jsonl.gz": lines(
            [{"user_id": f"A{u}", "parent_asin": f"B{i}", "timestamp": t * 1000} for u, i, t in ROWS]
        ),
        "meta_Software.jsonl.gz": lines(META_2023),
    },
    "ml-100k": {
        "ml-100k.zip": archive(
            **{"u.data": table("", "{user}\t{item}\t3\t{time}"), "u.item": ITEM_100K.encode("latin-1"), "README": b"r"}
        )
    },
    "ml-1m": {
        "ml-1m.zip": archive(
            **{"ratings.dat": table("", "{user}::{item}::3::{time}"), "movies.dat": MOVIES_DAT.encode("latin-1")},
            README=b"r",
        )
    },
    "ml-10m": {
        "ml-10m.zip": archive(
            **{"ratings.dat": table("", "{user}::{item}::3.5::{time}"), "movies.dat": MOVIES_DAT.encode()},
            **{"README.html": b"<html>"},
        )
    },
    "ml-32m": {
        "ml-32m.zip": archive(
            **{"ratings.csv": table("userId,movieId,rating,timestamp\n", "{user},{item},3.5,{time}")},
            **{"movies.csv": MOVIES_CSV.encode(), "README.txt": b"r", "links.csv": b"movieId,imdbId,tmdbId\n"},
        )
    },
}
"""What the servers have, by data set: one of each collection of the package's table."""


def local(name: str, server: Server, folder: Path) -> DataSource:
    """A source of the package whose files are on the local server."""
    source = known_sources(folder)[name]
    server.files |= {f"/{file}": content for file, content in DATA_SETS.get(name, {}).items()}
    files = tuple(dataclasses.replace(file, url=f"{server.url}/{file.name}") for file in source.files)
    return dataclasses.replace(source, files=files)


def fetch(source: DataSource, folder: Path, *, overwrite: bool = False) -> list[DownloadedFile]:
    with Fetcher(QUICK) as fetcher:
        return run_download(plan_download(source, folder, fetcher, overwrite=overwrite), fetcher)


def test_every_collection_of_the_package_has_its_case(tmp_path: Path) -> None:
    known = known_sources(tmp_path)
    assert {known[name].collection for name in DATA_SETS} == {source.collection for source in known.values()}
    for name, files in DATA_SETS.items():
        assert [file.name for file in known[name].files] == list(files)


@pytest.mark.parametrize("name", DATA_SETS)
def test_what_is_fetched_can_be_prepared(server: Server, tmp_path: Path, name: str) -> None:
    data = tmp_path / "dataset"
    found = fetch(local(name, server, data), data)
    prepared = prepare(name, data_dir=data, prepared_dir=tmp_path / "prepared")
    assert (prepared.statistics["users"], prepared.statistics["items"]) == (8, 7)
    assert prepared.statistics["interactions"] == len(ROWS)
    assert prepared.timestamps.min() == START
    assert sorted(prepared.item_table()["title"][1:]) == TITLES
    assert {file.name for file in found} | {CHECKSUMS, ORIGIN} == {path.name for path in (data / name).iterdir()}
    recorded = (data / name / CHECKSUMS).read_text().splitlines()
    assert recorded == sorted(
        (f"{file_hash(data / name / file.name)}  {file.name}" for file in found), key=lambda line: line[66:]
    )
    origin = yaml.safe_load((data / name / ORIGIN).read_text())
    assert origin["citation"] == known_sources(data)[name].citation


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    first = fetch(source, tmp_path)
    (tmp_path / "Beauty" / "meta_Beauty.json.gz").unlink()
    requests = len(server.requests)
    assert fetch(source, tmp_path) == first[1:]
    assert [path for _, path, _ in server.requests[requests:]] == ["/meta_Beauty.json.gz"] * 2
    assert fetch(source, tmp_path) == []
    assert fetch(source, tmp_path, overwrite=True) == first


def test_an_archive_is_fetched_again_where_one_of_its_files_is_missing(server: Server, tmp_path: Path) -> None:
    source = local("ml-1m", server, tmp_path)
    first = fetch(source, tmp_path)
    assert fetch(source, tmp_path) == []
    (tmp_path / "ml-1m" / "movies.dat").unlink()
    assert fetch(source, tmp_path) == first


def test_a_file_that_was_changed_on_disk_is_noticed(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    first = fetch(source, tmp_path)
    changed = tmp_path / "Beauty" / first[0].name
    changed.write_bytes(b"changed")
    with pytest.raises(DataError, match=r"5\.json\.gz differs from its checksum in SHA256SUMS.*--overwrite"):
        fetch(source, tmp_path)
    assert fetch(source, tmp_path, overwrite=True) == first


def test_a_file_that_somebody_else_put_there_stays(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    (tmp_path / "Beauty").mkdir()
    own = tmp_path / "Beauty" / "reviews_Beauty_5.json.gz"
    own.write_bytes(b"own")
    with Fetcher(QUICK) as fetcher:
        plan = plan_download(source, tmp_path, fetcher)
        assert (plan.unknown, plan.kept) == ((own.name,), ())
        assert plan.num_bytes == len(DATA_SETS["Beauty"]["meta_Beauty.json.gz"])
        run_download(plan, fetcher)
    assert own.read_bytes() == b"own"
    assert list(read_checksums(tmp_path / "Beauty")) == ["meta_Beauty.json.gz"]


@pytest.mark.parametrize("name", ["Beauty", "ml-1m"])
def test_a_damaged_file_is_removed_and_the_next_try_is_whole(server: Server, tmp_path: Path, name: str) -> None:
    source = local(name, server, tmp_path)
    path, content = next(iter(server.files.items()))
    server.files[path] = content[:-12]
    with pytest.raises(DataError, match=r"came damaged and was removed: is not a complete (gzip|zip).*Run the command"):
        fetch(source, tmp_path)
    assert list((tmp_path / name).iterdir()) == []
    server.files[path] = content
    assert len(fetch(source, tmp_path)) == len(source.file_names)


def test_a_length_that_is_too_short_is_noticed_as_damage(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    content = server.files["/reviews_Beauty_5.json.gz"]
    short = len(content) - 20
    server.answers["/reviews_Beauty_5.json.gz"] = lambda handler, _: handler.send(200, content, length=short)
    with pytest.raises(DataError, match="came damaged and was removed"):
        fetch(source, tmp_path)


def test_a_checksum_of_the_table_is_compared(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    wrong = dataclasses.replace(source, files=(dataclasses.replace(source.files[0], sha256="0" * 64),))
    with pytest.raises(DataError, match="came damaged and was removed: must have the checksum 0000"):
        fetch(wrong, tmp_path)
    (tmp_path / "right").write_bytes(server.files["/reviews_Beauty_5.json.gz"])
    right = dataclasses.replace(wrong.files[0], sha256=file_hash(tmp_path / "right"))
    assert len(fetch(dataclasses.replace(source, files=(right,)), tmp_path)) == 1


def test_two_downloads_into_one_folder_do_not_mix(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    (tmp_path / "Beauty").mkdir()
    with held(tmp_path / "Beauty" / ".download.lock"), pytest.raises(DataError, match="is being filled by process"):
        fetch(source, tmp_path)


def test_a_server_that_lacks_a_file_is_noticed_before_anything_is_fetched(server: Server, tmp_path: Path) -> None:
    source = local("Beauty", server, tmp_path)
    del server.files["/meta_Beauty.json.gz"]
    with pytest.raises(DataError, match=r"meta_Beauty\.json\.gz cannot be fetched \(status 404\)"):
        fetch(source, tmp_path)
    assert not (tmp_path / "Beauty").exists()
