"""The package's table of sources, tables of users, and what is refused in them."""

from pathlib import Path

import pytest

from athwe_core.data.sources.table import SOURCES, commands, find_download, known_sources
from athwe_core.errors import ConfigError

OWN = """
shop:
  title: Our shop
  files: ['https://data.example.org/shop/{name}.csv.gz']
  names: [shop-2025, shop-2026]
  sha256: {shop-2025.csv.gz: "CHECKSUM"}
""".replace("CHECKSUM", "0" * 64)


def test_the_package_knows_amazon_and_movielens(tmp_path: Path) -> None:
    known = known_sources(tmp_path)
    assert [file.url for file in known["Beauty"].files] == [
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Beauty_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_Beauty.json.gz",
    ]
    assert [file.url for file in known["Toys_and_Games-2018"].files] == [
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/Toys_and_Games_5.json.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_Toys_and_Games.json.gz",
    ]
    assert [file.name for file in known["Books-2023"].files] == ["Books.csv.gz", "meta_Books.jsonl.gz"]
    assert [file.name for file in known["Books-2023-all"].files] == ["Books.jsonl.gz", "meta_Books.jsonl.gz"]
    assert known["ml-1m"].files[0].url == "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
    assert known["ml-1m"].file_names == ("ratings.dat", "movies.dat", "README")
    assert len(known) == 24 + 29 + 2 * 34 + 8
    assert all(
        source.name == name and source.terms and source.citation and source.page for name, source in known.items()
    )


def test_users_add_tables_and_replace_entries(tmp_path: Path) -> None:
    (tmp_path / SOURCES).write_text(OWN)
    extra = tmp_path / "more.yaml"
    extra.write_text("mine: {title: Mine, files: ['http://localhost:8000/b.csv'], names: [Beauty]}")
    known = known_sources(tmp_path, extra)
    assert known["shop-2025"].files[0].url == "https://data.example.org/shop/shop-2025.csv.gz"
    assert known["shop-2025"].files[0].sha256 == "0" * 64
    assert known["shop-2026"].files[0].sha256 is None
    assert known["Beauty"].title == "Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Our shop", "titel: Our shop", r"sources\.yaml: shop\.title cannot be used \(Field required\)"),
        ("names: [", "folder: '../{name}'\n  names: [", "must be a plain name without path separators"),
        ("https://", "ftp://", "must be http or https addresses that end with a file name, got 'ftp://"),
        ("{name}.csv.gz'", "'", "must be http or https addresses that end with a file name"),
        ("{name}.csv.gz'", "SHA256SUMS'", "must end with a plain file name, got 'SHA256SUMS'"),
        ("{name}.csv.gz'", ".hidden'", "must end with a plain file name, got '.hidden'"),
        ("[shop-2025, shop-2026]", "[a, a]", "must name each data set once, got 'a'"),
        ("0" * 64, "abc", r"shop\.sha256\.shop-2025\.csv\.gz cannot be used \(String should match"),
        ("names: [", "unpack: [a, a]\n  names: [", "must have different names"),
        ("files: [", "unpack: [a.csv]\n  files: [https://x.org/b.zip, ", "is for one file, a zip archive, got 2"),
        ("shop:\n", "shop: 3\nother:\n", "must be a section with title, files and names, got 3"),
    ],
)
def test_a_table_that_is_refused_names_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    (tmp_path / SOURCES).write_text(OWN.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        known_sources(tmp_path)


def test_an_unknown_name_gets_the_nearest_ones(tmp_path: Path) -> None:
    known = known_sources(tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean Beauty.*\?, got 'beauty'\. List them: athwe download"):
        find_download("beauty", known)
    with pytest.raises(ConfigError, match="must be in the table of sources, got 'qqq'"):
        find_download("qqq", known)


def test_commands_name_the_folder_where_it_is_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATHWE_DATA", raising=False)
    assert commands("Beauty", Path("dataset")) == ("athwe download Beauty", "athwe prepare --dataset Beauty")
    assert commands("Beauty", Path("my data"))[0] == "athwe download Beauty --data 'my data'"
    monkeypatch.setenv("ATHWE_DATA", "my data")
    assert commands("Beauty", Path("my data"))[0] == "athwe download Beauty"
