"""The three layouts of MovieLens, with the oddities of their files, and what is left to the other readers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from athwe_core.data.options import PrepareOptions
from athwe_core.data.readers.detect import find_source, read_source
from athwe_core.data.readers.movielens import GENRES, find_movielens
from athwe_core.data.readers.reading import Reading
from athwe_core.data.readers.records import Records
from athwe_core.errors import ConfigError, DataError

FLAGS_WESTERN_AND_COMEDY = "|".join("1" if genre in ("Comedy", "Western") else "0" for genre in GENRES)
LAYOUTS: dict[str, dict[str, bytes]] = {
    "100k": {
        "u.data": b"196\t242\t3\t881250949\n186\t3\t1\t891717742\n",
        "u.item": f"242|Caf\xe9 (1996)|01-Jan-1996||http://x|{FLAGS_WESTERN_AND_COMEDY}\n3|B|||".encode("latin-1")
        + b"|0" * 19
        + b"\n",
        "u1.base": b"196\t242\t3\t881250949\n",
        "u.user": b"1|24|M|technician|85711\n",
    },
    "1m": {
        "ratings.dat": b"196::242::3::881250949\n186::3::1::891717742\n",
        "movies.dat": "242::Caf\xe9 (1996)::Comedy|Western\n3::B::\n".encode("latin-1"),
        "users.dat": b"1::F::1::10::48067\n",
    },
    "10m": {
        "ratings.dat": b"196::242::3.5::881250949\n186::3::1::891717742\n",
        "movies.dat": "242::Caf\xe9 (1996)::Comedy|Western\n3::B::(no genres listed)\n".encode(),
        "tags.dat": b"15::4973::excellent!::1215184630\n",
    },
    "32m": {
        "ratings.csv": b"userId,movieId,rating,timestamp\r\n196,242,3.5,881250949\r\n186,3,1.0,891717742\r\n",
        "movies.csv": "movieId,title,genres\r\n242,Caf\xe9 (1996),Comedy|Western\r\n3,B,(no genres listed)\r\n".encode(),
        "links.csv": b"movieId,imdbId,tmdbId\r\n242,0114709,862\r\n",
        "tags.csv": b"userId,movieId,tag,timestamp\r\n196,242,funny,881250949\r\n",
    },
}


@pytest.fixture
def put(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    def write(files: dict[str, bytes]) -> Path:
        folder = tmp_path / "films"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return write


def read(folder: Path, **options: object) -> Records:
    chosen = PrepareOptions(**options)  # type: ignore[arg-type]
    source = find_source("films", data_dir=folder.parent, options=chosen)
    assert source.kind == "movielens"
    return read_source(source, chosen, Reading(source.paths, chosen.max_bad_lines))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_records(put: Callable, layout: str) -> None:
    records = read(put(LAYOUTS[layout]))
    assert records.user_tokens.names.to_list() == ["196", "186"]
    assert records.item_tokens.names.to_list() == ["242", "3"]
    assert records.timestamps.tolist() == [881250949, 891717742]
    assert records.items is not None
    assert records.items.frame.rows() == [("242", "Caf\xe9 (1996)", "Comedy | Western"), ("3", "B", "")]


@pytest.mark.parametrize("layout", ["100k", "1m"])
def test_files_that_are_named_are_found_too(put: Callable, tmp_path: Path, layout: str) -> None:
    folder = put(LAYOUTS[layout])
    ratings, movies, *_ = (folder / name for name in LAYOUTS[layout])
    source = find_source("other", data_dir=tmp_path, raw=(ratings, movies), options=PrepareOptions())
    assert (source.kind, source.interactions, source.items) == ("movielens", (ratings,), (movies,))
    alone = find_source("other", data_dir=tmp_path, raw=(ratings,), options=PrepareOptions())
    assert (alone.kind, alone.items) == ("movielens", ())


def test_titles_with_commas_and_quotes(put: Callable) -> None:
    movies = 'movieId,title,genres\n242,"American President, The (""1995"")",Comedy|Western\n3,B,Drama\n'
    records = read(put(LAYOUTS["32m"] | {"movies.csv": movies.encode()}))
    assert records.items is not None
    assert records.items.frame["title"][0] == 'American President, The ("1995")'


def test_a_movie_line_that_cannot_be_read_is_dropped_and_reported(put: Callable) -> None:
    folder = put(LAYOUTS["1m"] | {"movies.dat": b"242::A::Drama\nx::B::Drama\n7::C\n242::again::Drama\n"})
    with pytest.raises(
        DataError, match=r"movies\.dat may have at most 0\.1 % lines .*2 of 4: line 2 must have a number"
    ):
        read(folder)
    records = read(folder, max_bad_lines=0.5)
    assert records.items is not None
    assert records.items.frame.rows() == [("242", "A", "Drama")]
    assert any("2 of 4 lines could not be read" in note for note in records.notes)


def test_no_movie_at_all_is_an_error(put: Callable) -> None:
    folder = put(LAYOUTS["32m"] | {"movies.csv": b"movieId,title,genres\n"})
    with pytest.raises(DataError, match=r"movies\.csv has no movies"):
        read(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"ratings.csv": LAYOUTS["32m"]["ratings.csv"]},  # alone it is a table like others
        {"ratings.csv": b"user,item,time\n1,2,3\n", "movies.csv": b"movieId,title,genres\n"},
        {"ratings.dat": b"1;2;3;4\n"},
        {"u.data": b""},
    ],
)
def test_what_is_no_movielens(put: Callable, files: dict[str, bytes]) -> None:
    assert find_movielens([put(files)]) == (None, None)


def test_columns_that_are_named_make_it_a_table(put: Callable) -> None:
    folder = put({"u.data": LAYOUTS["100k"]["u.data"]})
    options = PrepareOptions(columns=("user", "item", "rating", "time"))
    assert find_source("films", data_dir=folder.parent, options=options).kind == "table"
    with pytest.raises(ConfigError, match="--columns is for tables, and this is movielens"):
        find_source(
            "films", data_dir=folder.parent, options=PrepareOptions(columns=options.columns, source="movielens")
        )


def test_atomic_files_take_precedence(put: Callable) -> None:
    folder = put(LAYOUTS["1m"] | {"films.inter": b"user_id:token\titem_id:token\ttimestamp:float\nu\ti\t5\n"})
    assert find_source("films", data_dir=folder.parent, options=PrepareOptions()).kind == "atomic"


def test_the_kind_that_is_named_must_be_there(put: Callable, tmp_path: Path) -> None:
    put({"clicks.csv": b"user,item,time\nu,i,5\n"})
    with pytest.raises(DataError, match="for files of source movielens in"):
        find_source("films", data_dir=tmp_path, options=PrepareOptions(source="movielens"))
