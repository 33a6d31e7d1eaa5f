"""`athwe prepare`: source files to a prepared data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.progress import ReadingDisplay, WorkDisplay
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
            help="leave-one-out: each user's last item is test; global-time: all items before one moment are training; "
            "given: by the files NAME.{train,valid,test}.inter; auto: given where there are such files, else leave-one-out."
        ),
    ] = "auto",
    held_out_share: Annotated[
        float, typer.Option(help="Of global-time: share of interactions in the validation and in the test period.")
    ] = 0.1,
    min_interactions: Annotated[int, typer.Option(help="Fewest interactions of a user and of an item (k-core).")] = 5,
    keep_items: Annotated[
        bool,
        typer.Option(
            "--keep-items",
            help="Keep the items of the item file in the catalogue that have too few interactions to train on, or none: "
            "models rank them by text and image.",
        ),
    ] = False,
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
    seed: Annotated[
        int, typer.Option(help="Seed of the random tie order, the built-in text features and the demo.")
    ] = 0,
    users: Annotated[int, typer.Option(help="Users of the demo data set.")] = 1000,
    items: Annotated[int, typer.Option(help="Items of the demo data set.")] = 600,
    text_encoder: Annotated[
        str, typer.Option(help="builtin, or the name (owner/model@revision) or folder of a Hugging Face text model.")
    ] = "builtin",
    text_pooling: Annotated[str, typer.Option(help="Of a text encoder: cls (first position) or mean.")] = "cls",
    text_max_tokens: Annotated[int, typer.Option(help="Of a text encoder: longer texts are cut here.")] = 512,
    text_layers: Annotated[
        str | None,
        typer.Option(
            help="Of a text encoder: layers whose states are kept too, for iisan: 0,2,4 (0 = embedding output)."
        ),
    ] = None,
    image_layers: Annotated[str | None, typer.Option(help="The same of an image encoder.")] = None,
    image_encoder: Annotated[
        str | None,
        typer.Option(help="Name or folder of a Hugging Face vision model: ViT, CLIP, SigLIP. Default: none."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of pictures named by item id. Default: images/ or images*.zip of the data set."
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            help="Item column with paths or URLs of pictures. Default for URLs: image_url.", show_default=False
        ),
    ] = None,
    download_images: Annotated[
        Path | None,
        typer.Option(help="Fetch the pictures by URL to this folder; run again, it fetches what is missing."),
    ] = None,
    allow_private_hosts: Annotated[
        bool, typer.Option("--allow-private-hosts", help="Fetch from this machine and private networks too.")
    ] = False,
    clusters: Annotated[
        int, typer.Option(help="k of the cluster labels made from the vectors, for the cluster term; 0 makes none.")
    ] = 0,
    half_features: Annotated[
        bool, typer.Option("--half-features", help="Keep vectors in half precision: half the disk and memory.")
    ] = False,
    keep_feature_scale: Annotated[
        bool,
        typer.Option(
            "--keep-feature-scale",
            help="Leave the lengths of given and encoded vectors as they are. Default: one factor for all of a kind.",
        ),
    ] = False,
    feature_rows: Annotated[
        str,
        typer.Option(
            help="Order of the rows of feature files: number (row k is item k), number-from-1 (item k + 1), appearance (the "
            "k-th item in the interactions) or auto (by a file of ids, by the layout, or by numbers)."
        ),
    ] = "auto",
    refresh: Annotated[
        str | None,
        typer.Option(help="Make one kind of features again for the current version: text, image or clusters."),
    ] = None,
    device: opt.Device = None,
    source: Annotated[
        str,
        typer.Option(
            help="auto (detected by content), atomic, amazon-2014, amazon-2018, amazon-2023, movielens, table (csv, tsv, "
            "parquet, Feather, JSON lines) or demo."
        ),
    ] = "auto",
    raw: Annotated[
        list[Path] | None,
        typer.Option(
            help="File, folder of part files or pattern ('logs/*.csv') to read in place of NAME under --data. Repeatable.",
            show_default=False,
        ),
    ] = None,
    item_file: Annotated[
        Path | None, typer.Option(help="Of a table: table of the items. Default: items.* or NAME.items.* next to it.")
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
    engine: Annotated[
        str,
        typer.Option(
            help="local: this process reads, filters and orders; spark: Spark does, with the same result. Needs Java 17 and "
            "the extra spark."
        ),
    ] = "local",
    spark_master: Annotated[
        str | None,
        typer.Option(
            help="Of --engine spark: URL of the master, such as spark://host:7077 or local[4]. Default: that of Spark's own "
            "configuration, else all cores of this machine.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Write the data set for other tools: recbole (the split as benchmark files) or csv. Needs --to. A data set "
            "that is prepared already is written as it is, unless other options are given."
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Of --export: folder that gets a folder NAME.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Of --export: replace an earlier export.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Turn source files into a prepared data set and report what is in it.

    Reads RecBole atomic files (NAME/NAME.inter, NAME/NAME.item), raw Amazon reviews and metadata, MovieLens, or a table of
    your own, plain or compressed, in one file or in parts, with the feature files next to them. Every row of the files is
    accounted for. The same files with the same options are the same version: preparing again changes nothing.

    Example: athwe prepare --dataset Toys_and_Games --tie-order item

    Example: athwe prepare --dataset Toys --raw ~/reviews_Toys_5.json.gz --raw ~/meta_Toys.json.gz

    Example: athwe prepare --dataset clicks --raw clicks.parquet --user-column visitor --time-unit ms --item-file goods.csv

    Example: athwe prepare --dataset plays --raw plays.txt --columns user,item,rating,time

    Example: athwe prepare --dataset logs --raw 'logs/day=*/*.csv.gz' --time-format '%d.%m.%Y %H:%M'

    Example: athwe prepare --dataset logs --raw /shared/logs --engine spark --spark-master spark://host:7077

    Example: athwe prepare --dataset Toys_and_Games --export recbole --to recbole_data

    Example: athwe prepare --dataset Beauty --text-encoder bert-base-uncased --text-pooling mean --clusters 100

    Example: athwe prepare --dataset shop --raw orders.csv --item-file goods.csv --keep-items

    Example: athwe prepare --dataset Toys_and_Games --refresh image --image-encoder openai/clip-vit-base-patch32
    """
    from athwe_core.errors import ConfigError

    output = Output(as_json=as_json)
    if raw and dataset is None:
        raise ConfigError("--dataset", "must name the data set that --raw has the files of")
    if refresh is not None and (engine, spark_master) != ("local", None):
        raise ConfigError("--refresh", "makes features in this process and takes neither --engine nor --spark-master")
    if refresh is not None and (raw or item_file):
        raise ConfigError(
            "--refresh", "makes features of what is prepared already and reads no --raw and no --item-file"
        )
    if (export is None) != (to is None) or (overwrite and export is None):
        raise ConfigError("--export, --to", "must be given together, --overwrite only with them")
    name, why = opt.choose_dataset(dataset, runs)
    output.note(f"data set {name} ({why})")
    from athwe_core.data.export.write import export_dataset
    from athwe_core.data.features.build import EncodingSettings
    from athwe_core.data.prepare import PrepareOptions, list_versions, open_prepared
    from athwe_core.data.prepare import prepare as run_prepare
    from athwe_core.data.refresh import refresh as run_refresh

    chosen = PrepareOptions(
        tie_order=tie_order,  # type: ignore[arg-type]  # checked there
        split=split,  # type: ignore[arg-type]  # checked there
        held_out_share=held_out_share,
        min_interactions=min_interactions,
        keep_items=keep_items,
        category_column=category_column,
        text_columns=opt.names(text_columns),
        max_categories=max_categories,
        text_width=text_width,
        seed=seed,
        demo_users=users,
        demo_items=items,
        text_encoder=text_encoder,
        text_pooling=text_pooling,  # type: ignore[arg-type]  # checked there
        text_max_tokens=text_max_tokens,
        text_layers=_layers("--text-layers", text_layers),
        image_encoder=image_encoder,
        image_layers=_layers("--image-layers", image_layers),
        image_column=image_column,
        clusters=clusters,
        half_features=half_features,
        keep_feature_scale=keep_feature_scale,
        feature_rows=feature_rows,  # type: ignore[arg-type]  # checked there
        source=source,  # type: ignore[arg-type]  # checked there
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        time_unit=time_unit,  # type: ignore[arg-type]  # checked there
        columns=opt.names(columns),
        quotes=quotes,  # type: ignore[arg-type]  # checked there
        time_format=time_format,
        max_bad_lines=max_bad_lines,
        max_missing_ids=max_missing_ids,
    )
    display, reading = WorkDisplay(output), ReadingDisplay(output)
    encoding = EncodingSettings(
        images=images,
        download_to=download_images,
        allow_private_hosts=allow_private_hosts,
        device=device or "auto",
        progress=display,
    )
    try:
        is_as_before = chosen == PrepareOptions() and (engine, spark_master) == ("local", None)
        as_it_is = export is not None and is_as_before and not (raw or item_file or refresh)
        if as_it_is and list_versions(name, prepared_dir=prepared):
            found = open_prepared(name, prepared_dir=prepared)
            output.note(f"exporting version {found.version} as it is prepared: {found.rules}")
        elif refresh is None:
            found = run_prepare(
                name,
                data_dir=data,
                prepared_dir=prepared,
                options=chosen,
                raw=raw or (),
                item_file=item_file,
                encoding=encoding,
                engine=engine,  # type: ignore[arg-type]  # checked there
                spark_master=spark_master,
                notify=output.note,
                progress=reading,
            )
        else:
            found = run_refresh(
                name,
                refresh,  # type: ignore[arg-type]  # checked there
                data_dir=data,
                prepared_dir=prepared,
                options=chosen,
                encoding=encoding,
                notify=output.note,
            )
    except KeyboardInterrupt:
        if display.has_worked:
            output.note("interrupted: what was encoded or fetched is kept, the same command goes on from there")
        raise
    finally:
        display.close()
        reading.close()
    output.table(statistics_table(found.statistics, title=name))
    for pair in found.manifest["item_rows"]:
        output.note("  ".join(f"{key.replace('_', ' ')} {value}" for key, value in pair.items()))
    output.note(f"prepared in {found.path}")
    output.note(f"Next: athwe audit --dataset {shlex.quote(name)}")
    output.note(f"Then: athwe train --dataset {shlex.quote(name)}")
    facts = found.statistics
    if export is not None and to is not None:
        exported = export_dataset(found, to, form=export, overwrite=overwrite)
        for note in exported.notes:
            output.note(note)
        output.note(f"exported to {exported.path}: {', '.join(exported.files)}")
        facts["export"] = {"folder": str(exported.path), "form": export, "files": exported.files}
    output.json(facts)


def _layers(option: str, text: str | None) -> tuple[int, ...] | None:
    """`0,2,4` as numbers."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        from athwe_core.errors import ConfigError

        raise ConfigError(option, "must be layer numbers, separated by commas", text)
    return tuple(map(int, parts))
