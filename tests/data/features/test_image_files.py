"""Pictures by item id, from folders and archives, whole and broken."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from athwe_core.data.features import image_files
from athwe_core.data.features.image_files import ImageSource, find_images
from athwe_core.errors import ConfigError, DataError


def encoded(
    kind: str = "JPEG", *, size: tuple[int, int] = (8, 6), mode: str = "RGB", colour: object = (200, 10, 10)
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


FILES = {
    "a.jpg": encoded(),
    "B.1.JPEG": encoded(),
    "below/c.png": encoded("PNG"),
    "d.webp": encoded("WEBP"),
    "too/deep/e.jpg": encoded(),
    "f.gif": encoded("GIF"),
    ".hidden.jpg": encoded(),
    "__MACOSX/g.jpg": encoded(),
}


@pytest.fixture(params=["folder", "zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSource:
    make = {"folder": lambda: fill(tmp_path / "pictures", FILES), "zip": lambda: zipped(tmp_path / "p.zip", FILES)}
    return ImageSource.open(make[request.param]())


def test_items_are_found_at_the_top_and_one_level_down(source: ImageSource) -> None:
    assert set(source.entries) == {"a", "B.1", "c", "d"}
    assert len(source) == 4
    assert source.has("B.1")
    assert not source.has("e")


@pytest.mark.parametrize("item", ["a", "B.1", "c", "d"])
def test_a_thumbnail_is_a_jpeg_within_its_size(source: ImageSource, item: str) -> None:
    content = source.thumbnail(item, size=4)
    assert content is not None
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (4, 3))
    red, green, blue = picture.getpixel((1, 1))
    assert red > 150
    assert max(green, blue) < 60
    assert source.picture(item).size == (8, 6)
    assert source.broken == []


@pytest.mark.parametrize("item", ["../secret", "../../secret", "/etc/x", "", ".", "..", "below/c", "a.jpg", "x\0y"])
def test_an_id_is_never_part_of_a_path(source: ImageSource, item: str) -> None:
    fill(source.path.parent, {"secret.jpg": encoded()})
    assert not source.has(item)
    assert source.thumbnail(item) is None
    assert source.broken == []


def test_an_archive_member_that_points_outside_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, {"x.jpg": encoded()})
    source = ImageSource.open(zipped(tmp_path / "in" / "p.zip", {"../x.jpg": b"not a picture"}))
    assert source.thumbnail("x") is None


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 255), (0, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("L", 0, (0, 0, 0)),
        ("1", 0, (0, 0, 0)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_transparency_shows_white(tmp_path: Path, mode: str, colour: object, expected: tuple[int, int, int]) -> None:
    source = ImageSource.open(fill(tmp_path, {"x.png": encoded("PNG", mode=mode, colour=colour)}))
    assert source.picture("x").getpixel((0, 0)) == expected


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose pixels are missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "empty.jpg": b"",
    "text.png": b"<script>",
    "cut.jpg": encoded(size=(64, 64))[:200],
    "gif.jpg": encoded("GIF"),
    "bomb.png": png_of(60_000, 60_000),
    "large.png": png_of(8_000, 8_000),
    "missing_pixels.png": png_of(5, 5),
}


def test_broken_pictures_are_none_and_listed_once(tmp_path: Path) -> None:
    source = ImageSource.open(fill(tmp_path, BROKEN | {"good.jpg": encoded()}))
    names = [Path(name).stem for name in BROKEN]
    assert [source.thumbnail(name) for name in names] == [None] * len(names)
    assert source.thumbnail("empty") is None
    assert source.thumbnail("good") is not None
    assert source.broken == names


def test_limits_of_bytes_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageSource.open(zipped(tmp_path / "p.zip", {"x.png": encoded("PNG")}))
    assert source.thumbnail("x") is not None
    monkeypatch.setattr(image_files, "MAX_PIXELS", 47)
    assert source.thumbnail("x") is None
    monkeypatch.undo()
    monkeypatch.setattr(image_files, "MAX_BYTES", 20)
    assert ImageSource.open(source.path).thumbnail("x") is None


def test_a_file_that_has_gone_is_broken(tmp_path: Path) -> None:
    source = ImageSource.open(fill(tmp_path, {"x.jpg": encoded()}))
    (tmp_path / "x.jpg").unlink()
    assert source.thumbnail("x") is None
    assert source.broken == ["x"]


def test_what_is_no_folder_and_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    for path in (tmp_path / "absent", tmp_path / "x.zip"):
        with pytest.raises(DataError, match=f"{path.name} must be a folder or a zip archive"):
            ImageSource.open(path)


def test_the_folder_of_a_data_set_is_looked_through(tmp_path: Path) -> None:
    assert find_images(tmp_path, "toys") is None
    zipped(tmp_path / "toys" / "images_b.zip", {"b.jpg": encoded()})
    zipped(tmp_path / "toys" / "images_a.zip", {"a.jpg": encoded()})
    assert find_images(tmp_path, "toys").has("a")
    fill(tmp_path / "toys" / "images", {"c.jpg": encoded()})
    assert find_images(tmp_path, "toys").has("c")
    with pytest.raises(ConfigError, match="must be a plain name"):
        find_images(tmp_path, "../toys")
