"""`athwe download`: fetch a public data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.confirm import confirmed
from athwe_cli.errors import one_line_errors
from athwe_cli.progress import DownloadDisplay
from athwe_cli.render import Output, facts_table, rows_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from athwe_core.data.sources.download import DownloadPlan
    from athwe_core.data.sources.table import DataSource


@one_line_errors
def download(
    name: Annotated[
        str | None, typer.Argument(help="A data set of the table of sources. Default: list them.", metavar="NAME")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before fetching.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fetch files again that are there already.")] = False,
    sources: Annotated[
        Path | None,
        typer.Option(help="A further table of sources (YAML). Also read: sources.yaml under --data.", metavar="FILE"),
    ] = None,
    data: opt.DataDir = opt.DATA_DIR,
    as_json: opt.Json = False,
) -> None:
    """Fetch a public data set into its folder under --data, where prepare finds it; without NAME, list what there is.

    Shows size, source, terms and citation, and asks. A download that was interrupted continues where it ended. Every file is
    checked, and its checksum is recorded in SHA256SUMS. Files that are there already stay.

    Example: athwe download

    Example: athwe download Beauty

    Example: athwe download ml-1m --yes

    Example: athwe download shop --sources our_sources.yaml
    """
    from athwe_core.data.sources.download import plan_download, run_download
    from athwe_core.data.sources.fetch import Fetcher
    from athwe_core.data.sources.table import commands, find_download, known_sources

    output = Output(as_json=as_json)
    known = known_sources(data, sources)
    if name is None:
        _list(known, output)
        return
    source = find_download(name, known)
    display = DownloadDisplay(output)
    with Fetcher(notify=output.note) as fetcher:
        plan = plan_download(source, data, fetcher, overwrite=overwrite)
        _show(plan, output)
        if not plan.missing:
            output.note(f"{name} is there already, in {plan.folder}. To fetch it again: --overwrite")
            found = []
        elif confirmed(f"Fetch {_size(plan.num_bytes)} to {plan.folder}?", yes=yes):
            try:
                found = run_download(plan, fetcher, progress=display, notify=output.note)
            except KeyboardInterrupt:
                output.note("interrupted: what was fetched is kept, the same command continues from there")
                raise
            finally:
                display.close()
        else:
            return
    for file in found:
        output.note(f"{plan.folder / file.name}: {_size(file.bytes)}, SHA-256 {file.sha256}")
    output.note(f"Prepare it: {commands(name, data)[1]}")
    fetched = [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in found]
    kept = [*plan.kept, *plan.unknown]
    output.json({"name": name, "folder": str(plan.folder), "fetched": fetched, "kept": kept})


def _list(known: Mapping[str, DataSource], output: Output) -> None:
    by_collection: dict[str, list[DataSource]] = {}
    for source in known.values():
        by_collection.setdefault(source.collection, []).append(source)
    rows = [
        {"collection": members[0].title, "names": ", ".join(source.name for source in members)}
        for members in by_collection.values()
    ]
    output.table(rows_table(rows, columns=["collection", "names"]))
    facts = [
        {"name": source.name, "collection": source.collection, "title": source.title, "page": source.page}
        for source in known.values()
    ]
    output.json({"sources": facts})


def _show(plan: DownloadPlan, output: Output) -> None:
    """What a user should know before fetching."""
    source = plan.source
    facts = {"folder": str(plan.folder), "page": source.page, "terms": source.terms, "citation": source.citation}
    output.table(
        facts_table({key: value or None for key, value in facts.items()}, title=f"{source.name}: {source.title}")
    )
    for file, size in plan.missing:
        output.note(f"{file.url}: {_size(size)}")
    if plan.missing and source.unpack:
        output.note(f"kept of the archive: {', '.join(source.unpack)}")
    if plan.kept:
        output.note(f"there already, as recorded: {', '.join(plan.kept)}")
    if plan.unknown:
        output.note(f"there already, not recorded, so not checked: {', '.join(plan.unknown)}")


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "an unknown size"
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
