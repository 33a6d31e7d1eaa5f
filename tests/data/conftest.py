"""Small data sets, written the way a user would have them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from athwe_core.data.prepare import PreparedDataset, PrepareOptions, prepare

Row = tuple[str, str, object]
NUM_TOY_USERS, NUM_TOY_ITEMS = 7, 6

settings.register_profile("patient", deadline=None)  # of files on a busy machine no single one tells anything
settings.load_profile("patient")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "dataset"


@pytest.fixture
def write_inter(data_dir: Path) -> Callable[..., Path]:
    """Write `toy/toy.inter` from (user, item, time) rows and return the folder."""

    def write(rows: Sequence[Row], name: str = "toy") -> Path:
        folder = data_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
        (folder / f"{name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return write


@pytest.fixture
def toy_rows() -> list[Row]:
    """7 users take all 6 items in turn, each from another start, at odd seconds near 1.4e9."""
    return [
        (f"u{user}", f"i{(user + step) % NUM_TOY_ITEMS}", 1_400_000_001 + 1000 * user + 2 * step)
        for user in range(NUM_TOY_USERS)
        for step in range(NUM_TOY_ITEMS)
    ]


@pytest.fixture
def toy_tokens() -> list[str]:
    """Raw item ids of `toy_rows` by internal id, padding first."""
    return ["", *(f"i{number}" for number in range(NUM_TOY_ITEMS))]


@pytest.fixture
def prepare_toy(data_dir: Path, tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepare `toy` with the given options."""

    def run(notify: Callable[[str], None] = lambda _: None, name: str = "toy", **options: object) -> PreparedDataset:
        return prepare(
            name,
            data_dir=data_dir,
            prepared_dir=tmp_path / "prepared",
            options=PrepareOptions(**options),  # type: ignore[arg-type]
            notify=notify,
        )

    return run
