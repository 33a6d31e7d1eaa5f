"""`athwe recommend`: the best items of users, of new histories, or near an item, by a trained run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.progress import ReadingDisplay, WorkDisplay
from athwe_cli.render import Output, rows_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from athwe_core.data.histories import Histories
    from athwe_core.data.options import PrepareOptions
    from athwe_core.data.store.dataset import PreparedDataset
    from athwe_core.serving.trained_model import TrainedModel

MOST_SHOWN = 100
"""Users or items whose recommendations are printed; for more, --to names a file."""


@one_line_errors
def recommend(
    run: opt.RunOrHub = "last",
    dataset: opt.Dataset = None,
    users: Annotated[
        list[str] | None,
        typer.Option(
            help="Users of the data set: an id, or a file with one id a line or a user column. Repeatable. Default: all.",
            metavar="ID|FILE",
            show_default=False,
        ),
    ] = None,
    histories: Annotated[
        Path | None,
        typer.Option(
            help="Table of interactions of any users, with a user, an item and a time in each row, as prepare reads it; - is "
            "standard input. Rows of equal time count in the order of the file.",
            metavar="FILE",
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="Find the items nearest to this one, by the cosine of the model's vectors: an id, or a file of ids. "
            "Repeatable.",
            metavar="ID|FILE",
        ),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option(
            help="Recommend only these: an id, or a file with one id a line or an item column. Repeatable. Default: all.",
            metavar="ID|FILE",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Items for each user.")] = 10,
    exclude_seen: Annotated[
        bool,
        typer.Option(
            "--exclude-seen/--keep-seen", help="Leave out the items of the user's history (glossary: seen items)."
        ),
    ] = True,
    with_columns: Annotated[
        str | None,
        typer.Option("--with", help="Comma-separated columns of the items to add: title,brand.", metavar="COLUMNS"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="File that ends with .parquet, .csv or .jsonl. Default: print a table.", metavar="FILE"),
    ] = None,
    user_column: opt.UserColumn = None,
    item_column: opt.ItemColumn = None,
    time_column: opt.TimeColumn = None,
    columns: opt.Columns = None,
    quotes: opt.Quotes = "auto",
    time_unit: opt.TimeUnit = "auto",
    time_format: opt.TimeFormat = None,
    max_bad_lines: opt.MaxBadLines = 0.001,
    max_missing_ids: opt.MaxMissingIds = 0.01,
    verify: opt.Verify = False,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Recommend the k best items to users of the data set, or to new users, with the best weights of a run.

    Users of the data set have their whole history, held-out items included. Items of equal score are in the order of their
    first appearance in the data. A file has one row for each recommendation, with the columns user_id, rank, item_id and
    score; a long one is estimated first and written in parts, and the same command continues after an interruption.

    Example: athwe recommend --run last --k 20 --to recommendations.parquet

    Example: athwe recommend --users A1 --users A2 --with title

    Example: athwe recommend --histories carts.csv --items in_stock.txt --to mail.csv

    Example: athwe recommend --like B00004 --k 5 --with title
    """
    from athwe_core.errors import ConfigError, require

    output = Output(as_json=as_json)
    if sum(bool(given) for given in (users, histories, like)) > 1:
        raise ConfigError("--users, --histories, --like", "cannot be combined", remedy="Choose one of them")
    require(k >= 1, "--k", "must be at least 1", k)
    output.note(f"loading {run}")
    from athwe_core.data.options import PrepareOptions
    from athwe_core.data.readers.id_list import ids_of
    from athwe_core.runs.find import find_run
    from athwe_core.serving.hub import is_hub, open_hub
    from athwe_core.serving.recommendations import Rows, SimilarItems, UserRecommendations
    from athwe_core.serving.table_parts import require_format, write_table
    from athwe_core.serving.trained_model import open_trained

    if to is not None:
        require_format(to)
    options = PrepareOptions(
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        columns=opt.names(columns),
        quotes=quotes,  # type: ignore[arg-type]  # checked there
        time_unit=time_unit,  # type: ignore[arg-type]  # checked there
        time_format=time_format,
        max_bad_lines=max_bad_lines,
        max_missing_ids=max_missing_ids,
    )
    data = None
    if is_hub(run):
        if histories is None and like is None:
            rule = "is a model without its data set, so it has no users"
            raise ConfigError("--run", rule, run, "Add --histories FILE, or --like ITEM")
        trained = open_hub(run)
        facts: dict[str, object] = {"run": run}
    else:
        name, why = (dataset, "--dataset") if run != "last" else opt.choose_dataset(dataset, runs)
        if run == "last":
            output.note(f"data set {name} ({why})")
        found = find_run(runs, run, dataset=name, notify=output.note)
        data = found.open_data(prepared, check_all=verify)
        output.note(f"run {found.name}, prepared version {data.version}")
        trained = open_trained(found, data)
        facts = {"run": found.name, "data_version": data.version}
    extra = opt.names(with_columns) or ()

    def numbers(values: list[str], option: str) -> NDArray[np.int64]:
        """Numbers of the items that were typed or are in files."""
        ids, notes = ids_of(values, "item")
        chosen, left_out = trained.numbers(ids, option)
        for note in (*notes, *([left_out] if left_out else [])):
            output.note(note)
        return chosen

    allowed = None if items is None else numbers(items, "--items")
    table: Rows
    if like is not None:
        table = SimilarItems(trained, numbers(like, "--like"), k=k, allowed=allowed, columns=extra)
    else:
        chosen = _histories(trained, data, users, histories, options, output)
        table = UserRecommendations(trained, chosen, k=k, exclude_seen=exclude_seen, allowed=allowed, columns=extra)
    facts |= {"k": k, "entries": table.size}
    if like is None:
        facts["exclude_seen"] = exclude_seen
    if to is None:
        if table.size > MOST_SHOWN:
            rule = f"must name a file for more than {MOST_SHOWN} recommendation lists, here {table.size:,}"
            raise ConfigError("--to", rule, remedy="Add --to recommendations.parquet, or choose --users")
        rows = table.rows(0, table.size)
        output.table(rows_table(rows.to_dicts(), columns=rows.columns))
        output.json({**facts, "recommendations": rows.to_dicts()})
        return
    began, display = perf_counter(), WorkDisplay(output)
    try:
        written = write_table(
            table,
            to,
            rows_per_entry=k,
            progress=lambda done, total, rate: display("recommending", done, total, rate),
            notify=output.note,
        )
    except KeyboardInterrupt:
        output.note("interrupted: finished parts are kept, the same command continues from there")
        raise
    finally:
        display.close()
    seconds = perf_counter() - began
    output.note(f"{to}: {table.size:,} lists, {written.bytes / 1e6:,.1f} MB, {seconds:.1f} s")
    output.json({**facts, "to": str(to), "bytes": written.bytes, "kept": written.kept_entries, "seconds": seconds})


def _histories(
    trained: TrainedModel,
    data: PreparedDataset | None,
    users: list[str] | None,
    path: Path | None,
    options: PrepareOptions,
    output: Output,
) -> Histories:
    """The histories of the chosen users, or of a file; what is left out is reported."""
    from athwe_core.data.histories import histories_of_users, read_histories
    from athwe_core.data.readers.id_list import ids_of
    from athwe_core.serving.trained_model import known_users

    if path is not None:
        reading = ReadingDisplay(output)
        with _local(path) as file:
            try:
                found, notes = read_histories(trained, file, options, progress=reading)
            finally:
                reading.close()
        for note in notes:
            output.note(note)
        return found
    assert data is not None, "a model without data set needs --histories"
    if users is None:
        return histories_of_users(data)
    ids, notes = ids_of(users, "user")
    known, left_out = known_users(data, ids)
    for note in (*notes, *([left_out] if left_out else [])):
        output.note(note)
    return histories_of_users(data, known)


@contextmanager
def _local(path: Path) -> Iterator[Path]:
    """The file itself, or a copy of standard input, which readers look at more than once."""
    if str(path) != "-":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard-input"
        with copy.open("wb") as file:
            shutil.copyfileobj(typer.get_binary_stream("stdin"), file)
        yield copy
