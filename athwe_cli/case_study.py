"""`athwe case-study`: one user's history, what each run recommends, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import one_line_errors
from athwe_cli.pages import write_page
from athwe_cli.render import Output

if TYPE_CHECKING:
    from athwe_core.analysis.case_study.result import CaseStudy
    from athwe_core.analysis.case_study.select_user import Case
    from athwe_core.data.demo.pictures import DemoPictures
    from athwe_core.data.features.image_files import ImageSource
    from athwe_core.data.prepare import PreparedDataset
    from athwe_core.runs.find import RunFolder


@one_line_errors
def case_study(
    user: Annotated[str | None, typer.Option(help="A user's own id.", show_default=False)] = None,
    random: Annotated[int | None, typer.Option(help="Number of users to draw at random.", metavar="N")] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            help="Pick a user: improved or failed most (NDCG@10 against the first --against), or typical (the median rank)."
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="The history of a new user: a CSV file with columns item_id and timestamp.", metavar="FILE"),
    ] = None,
    run: opt.Run = "last",
    against: Annotated[
        list[str] | None, typer.Option(help="Another run on the same data to compare with. Repeatable.", metavar="RUN")
    ] = None,
    dataset: opt.Dataset = None,
    split: Annotated[str, typer.Option(help="validation or test: the held-out item that is the target.")] = "test",
    k: Annotated[int, typer.Option("--k", help="How many items each run recommends.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images named by item id. Default: images/ or images*.zip in the data set's folder.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="HTML page to write. Default: one for each user in RUNS/DATASET/case-studies.",
            show_default=False,
        ),
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no page.")] = False,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Show one user's history, the rank of the true next item, each run's recommendations, and why.

    The explanation shows how the rank changes when an item is left out or comes at another time. Models that allow it also
    show score parts, gates, attention and wavelet energy. The HTML page is one file that needs no network.

    Example: athwe case-study --user 123

    Example: athwe case-study --pick improved --run athwe/full --against hm4sr/full
    """
    from athwe_core.errors import ConfigError

    output = Output(as_json=as_json)
    ways = {"--user": user, "--random": random, "--pick": pick, "--history": history}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        rule = f"needs exactly one of {', '.join(ways)}"
        raise ConfigError("case-study", rule, " and ".join(given) or "none", "Try --random 1")
    if split not in ("validation", "test"):
        raise ConfigError("--split", "must be validation or test", split)
    if html is not None and no_html:
        raise ConfigError("--html", "must not be given with --no-html", str(html))
    found = _find(run, against or [], dataset, runs, output)
    versions = dict.fromkeys(each.manifest()["data"]["version"] for each in found)
    output.note(f"run {', '.join(each.name for each in found)}, prepared version {', '.join(versions)}")
    from athwe_cli.case_study_text import CaseText
    from athwe_core.analysis.case_study.loaded_run import open_runs
    from athwe_core.analysis.case_study.new_user import read_history
    from athwe_core.analysis.case_study.select_user import case_of_user, pick_user, random_users
    from athwe_core.analysis.case_study.study import case_study as study

    picked = pick_user(pick, found[0], found[1] if len(found) > 1 else None, split=split) if pick is not None else None
    opened = open_runs(found, prepared)
    known = opened.prepared
    cases: list[Case]
    if picked is not None:
        cases = [case_of_user(known, picked[0], split=split, picked=picked[1])]
    elif history is not None:
        cases = [read_history(history, known, split=split)]
    else:
        users = [user] if user is not None else random_users(known, random or 0, split=split, seed=seed)
        cases = [case_of_user(known, each, split=split) for each in users]
    results = [study(opened, case, k=k) for case in cases]
    if not no_html:
        stem = None if history is None else f"new-user-{history.stem}"
        folder = runs / known.name / "case-studies"
        pages = {html: results} if html is not None else {folder / page_name(stem, case): [case] for case in results}
        _write_pages(pages, _pictures(images, data, known), dataset=known.name, runs=runs, output=output)
    view = CaseText(output.out)
    for result in results:
        view.show(result)
    output.json(results[0] if len(results) == 1 else {"cases": results})


def _find(run: str, against: list[str], dataset: str | None, runs: Path, output: Output) -> list[RunFolder]:
    from athwe_core.runs.find import find_run

    name = dataset
    if run == "last":
        name, why = opt.choose_dataset(dataset, runs)
        output.note(f"data set {name} ({why})")
    return [find_run(runs, text, dataset=name) for text in (run, *against)]


def page_name(stem: str | None, case: CaseStudy) -> str:
    """File name of a case's page: the characters of the user's id that are safe, and a hash where some are not."""
    raw = stem if stem is not None else str(case["user"])
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", raw)[:100].lstrip(".")
    if safe != raw:
        import hashlib

        safe += "-" + hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe}.html"


def _pictures(given: Path | None, data: Path, known: PreparedDataset) -> ImageSource | DemoPictures | None:
    from athwe_core.data.demo.pictures import demo_pictures
    from athwe_core.data.features.image_files import ImageSource, find_images

    if given is not None:
        return ImageSource.open(given)
    return find_images(data, known.name) or demo_pictures(known)


def _write_pages(
    pages: dict[Path, list[CaseStudy]],
    pictures: ImageSource | DemoPictures | None,
    *,
    dataset: str,
    runs: Path,
    output: Output,
) -> None:
    from functools import partial

    from athwe_core.analysis.pages.html import case_study_page
    from athwe_core.data.features.image_files import ImageSource

    for path, cases in pages.items():
        write_page(path, partial(case_study_page, cases, pictures), dataset=dataset, runs=runs, output=output)
    if isinstance(pictures, ImageSource) and pictures.broken:
        shown = ", ".join(map(repr, pictures.broken[:3])) + (", ..." if len(pictures.broken) > 3 else "")
        output.note(f"images in {pictures.path} that could not be read: {len(pictures.broken)} ({shown})")
