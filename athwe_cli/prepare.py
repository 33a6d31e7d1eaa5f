"""`athwe prepare`: source files to a prepared data set."""

from __future__ import annotations

from typing import Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.render import Output, statistics_table


@one_line_errors
def prepare(
    dataset: opt.Dataset = None,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    tie_order: Annotated[
        str, typer.Option(help="Order of a user's interactions at equal times: file, item (raw id as text) or random.")
    ] = "file",
    split: Annotated[
        str,
        typer.Option(
            help="leave-one-out: each user's last item is test; global-time: all items before one moment are training."
        ),
    ] = "leave-one-out",
    held_out_share: Annotated[
        float, typer.Option(help="Of global-time: share of interactions in the validation and in the test period.")
    ] = 0.1,
    min_interactions: Annotated[int, typer.Option(help="Fewest interactions of a user and of an item (k-core).")] = 5,
    category_column: Annotated[
        str | None,
        typer.Option(help="Column of the .item file with the categories. Default: categories, else category."),
    ] = None,
    text_columns: Annotated[
        str | None,
        typer.Option(help="Comma-separated columns for the built-in text features. Default: title,brand,categories."),
    ] = None,
    max_categories: Annotated[int, typer.Option(help="Most frequent categories kept.")] = 300,
    text_width: Annotated[int, typer.Option(help="Width of the built-in text features.")] = 256,
    seed: Annotated[int, typer.Option(help="Of random tie order, built-in text features and demo.")] = 0,
    users: Annotated[int, typer.Option(help="Users of the demo data set.")] = 2000,
    items: Annotated[int, typer.Option(help="Items of the demo data set.")] = 1000,
    as_json: opt.Json = False,
) -> None:
    """Turn source files into a prepared data set and say what is in it.

    Reads RecBole atomic files (NAME/NAME.inter, NAME/NAME.item, plain or gzip) with the feature files beside them. The
    same files with the same options are the same version: preparing again changes nothing.

    Example: athwe prepare --dataset Toys_and_Games --tie-order item
    """
    from athwe_core.data.prepared import PrepareOptions
    from athwe_core.data.prepared import prepare as run_prepare

    output = Output(as_json=as_json)
    name, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {name} ({why})")
    chosen = PrepareOptions(
        tie_order=tie_order,  # type: ignore[arg-type]  # checked there
        split=split,  # type: ignore[arg-type]  # checked there
        held_out_share=held_out_share,
        min_interactions=min_interactions,
        category_column=category_column,
        text_columns=None if text_columns is None else tuple(part.strip() for part in text_columns.split(",")),
        max_categories=max_categories,
        text_width=text_width,
        seed=seed,
        demo_users=users,
        demo_items=items,
    )
    found = run_prepare(name, data_dir=data, prepared_dir=prepared, options=chosen, notify=output.note)
    output.table(statistics_table(found.statistics, title=name))
    for pair in found.manifest["item_rows"]:
        output.note("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in pair.items()))
    output.note(f"prepared in {found.path}")
    output.json(found.statistics)
