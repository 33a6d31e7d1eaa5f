"""Pictures by URL into a folder, one file an item: what is there and whole stays, what fails is listed beside them."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from athwe_core.data.features.download import Limits, fetch_all
from athwe_core.data.features.image_files import SUFFIXES, ImageSource, picture_suffix
from athwe_core.data.features.resumable import WorkProgress, say_nothing

FAILURES = "failures.tsv"
_UNSAFE = re.compile(r"[^A-Za-z0-9 !#$&'()+,;=@\[\]^_`{}~.-]")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)
"""Names that are devices on Windows, whatever their suffix and folder."""
_LONGEST_STEM = 150


@dataclass(frozen=True)
class Downloaded:
    """What a folder of pictures holds after a download.

    Attributes:
        source: The pictures of the items asked for that are there.
        kept: Pictures that were there before.
        fetched: Pictures that came now.
        failures: Reason by item; with the URLs in `failures.tsv` of the folder.
    """

    source: ImageSource
    kept: int
    fetched: int
    failures: dict[str, str]


def download_images(
    urls: Mapping[str, str], folder: Path, *, limits: Limits | None = None, progress: WorkProgress = say_nothing
) -> Downloaded:
    """Fetch the picture of each item to `folder/ITEM.jpg` (.png, .webp by content). Run again, it fetches what is missing.

    Args:
        urls: URL by item id; an id that is no file name gets a name made from it.
        folder: Made where it is missing.
        limits: See `fetch_all`.
        progress: Called after every picture.
    Raises:
        ConfigError: httpx is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _whole_pictures(folder, {_stem(item_id): item_id for item_id in urls})
    kept = len(found)
    wanted = {item_id: url for item_id, url in urls.items() if item_id not in found}
    began = time.monotonic()

    def receive(item_id: str, content: bytes) -> None:
        suffix = picture_suffix(content)
        unfinished = folder / f"{_stem(item_id)}.part"
        unfinished.write_bytes(content)
        unfinished.replace(unfinished.with_suffix(suffix))
        found[item_id] = unfinished.with_suffix(suffix).name

    def tell(done: int) -> None:
        progress("downloading images", kept + done, len(urls), done / max(time.monotonic() - began, 1e-9))

    failures = fetch_all(wanted, receive, limits=limits, progress=tell) if wanted else {}
    _list_failures(folder / FAILURES, failures, urls)
    return Downloaded(ImageSource(folder, found), kept, len(found) - kept, failures)


def _whole_pictures(folder: Path, item_of_stem: Mapping[str, str]) -> dict[str, str]:
    """File name by item of the pictures in `folder` that can be read to their end."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        item_id = item_of_stem.get(path.stem)
        if item_id is None or item_id in found or path.suffix not in SUFFIXES:
            continue
        try:
            picture_suffix(path.read_bytes())
        except (ValueError, OSError):
            continue
        found[item_id] = path.name
    return found


def _stem(item_id: str) -> str:
    """A file name without suffix: the id itself where that can be one, else an escaped and shortened form of it."""
    is_short = 0 < len(item_id) <= _LONGEST_STEM
    is_odd = item_id.strip(" .") != item_id or _UNSAFE.search(item_id) or _DEVICE.fullmatch(item_id)
    if is_short and not is_odd:
        return item_id
    digest = hashlib.sha256(item_id.encode()).hexdigest()[:12]
    return f"{_UNSAFE.sub('_', item_id).strip(' .').replace('.', '_')[:100]}-{digest}"


def _list_failures(path: Path, failures: Mapping[str, str], urls: Mapping[str, str]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = [("item_id", "url", "reason"), *((item_id, urls[item_id], why) for item_id, why in failures.items())]
    lines = ["\t".join(" ".join(field.split()) for field in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
