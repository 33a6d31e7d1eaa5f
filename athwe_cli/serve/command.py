"""`athwe serve`: recommendations by a trained run over HTTP, and a page to try it."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli import options as opt
from athwe_cli.errors import debug, one_line_errors
from athwe_cli.render import Output
from athwe_cli.signals import noted_signals

if TYPE_CHECKING:
    from athwe_core.data.features.image_files import ImageSource

LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")
"""Of the extra `serve`."""
LOCAL = ("127.0.0.1", "::1", "localhost")
SHORTEST_KEY = 16


@one_line_errors
def serve(
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Run: a path, DATASET/PRESET/NAME, a unique name, or last; or a model that was exported for the hub. "
            "Repeatable: the first one answers, the page compares all. Default: last.",
            show_default=False,
        ),
    ] = None,
    dataset: opt.Dataset = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Any other than this machine's own needs --api-key-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 = any free one.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with one key a line. A request needs one of them: Authorization: Bearer KEY; browsers ask for it "
            "as the password.",
            metavar="FILE",
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The page at / to try the runs.")] = True,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of images named by item id, for the page. Default: images/ or images*.zip in the data set's "
            "folder.",
            show_default=False,
        ),
    ] = None,
    check_seconds: Annotated[
        float,
        typer.Option(help="How often to look for newer weights or a newer run of the same name; 0 = on SIGHUP.", min=0),
    ] = 10.0,
    max_batch: Annotated[int, typer.Option(help="Histories computed at once.", min=1)] = 64,
    max_queue: Annotated[int, typer.Option(help="Histories that may wait; for more the answer is 429.", min=1)] = 1024,
    max_k: Annotated[int, typer.Option(help="Items for each history.", min=1)] = 1000,
    max_history: Annotated[int, typer.Option(help="Items of a history.", min=1)] = 1000,
    max_body_kb: Annotated[int, typer.Option(help="Size of a request.", min=1)] = 1024,
    timeout_seconds: Annotated[
        float,
        typer.Option(help="Time for a request to arrive, and again to wait in the queue."),
    ] = 10.0,
    data: opt.DataDir = opt.DATA_DIR,
    prepared: opt.PreparedDir = opt.PREPARED_DIR,
    runs: opt.RunsDir = opt.RUNS_DIR,
    as_json: opt.Json = False,
) -> None:
    """Answer requests for recommendations over HTTP with the best weights of a run, until SIGTERM or Ctrl-C.

    POST /recommend takes histories, POST /similar items; /docs describes them, / is a page to try the runs by hand, with
    reasons. Requests are computed in batches. A newer run of the same name is loaded without losing a request. Needs pip
    install 'athwe[serve]'. --json prints one object with the address once requests are taken.

    Example: athwe serve --run last

    Example: athwe serve --run athwe/full --run hm4sr/full --port 8080

    Example: athwe serve --run shop --host 0.0.0.0 --api-key-file keys.txt --no-page
    """
    from athwe_core.errors import require

    output = Output(as_json=as_json)
    _require_libraries()
    require(timeout_seconds > 0, "--timeout-seconds", "must be above 0", timeout_seconds)
    keys = _keys(api_key_file, host)
    names = tuple(run or ["last"])
    output.note(f"loading {', '.join(names)}")

    import torch

    from athwe_cli.serve.api import create_app
    from athwe_cli.serve.limits import Limits
    from athwe_cli.serve.server import bind, serve_until_stopped
    from athwe_core.serving.hub import is_hub
    from athwe_core.serving.service import RunSource, Service

    is_exported = any(map(is_hub, names))
    require(not is_exported or len(names) == 1, "--run", "must name one exported model, or runs only", names)
    name, why = (dataset, "--dataset") if is_exported or "last" not in names else opt.choose_dataset(dataset, runs)
    if "last" in names:
        output.note(f"data set {name} ({why})")
    listening = bind(host, port)
    limits = Limits(
        k=max_k,
        history=max_history,
        body_bytes=max_body_kb * 1024,
        body_seconds=timeout_seconds,
        wait_seconds=timeout_seconds,
    )
    torch.set_num_threads(max(torch.get_num_threads() - 1, 1))  # one core is for the network
    with listening:
        pictures = _pictures(images, data, names, name, runs) if page and not is_exported else None
        source = RunSource(names, name, runs, prepared, with_page=page, images=pictures)
        service = Service(source, max_batch=max_batch, max_queue=max_queue, timeout_seconds=timeout_seconds)
        app = create_app(service, limits=limits, keys=keys, report=lambda error: _report(error, output))
        place = listening.getsockname()
        url = f"http://{f'[{place[0]}]' if ':' in place[0] else place[0]}:{place[1]}"
        has_page = service.served.explorer is not None

        def started() -> None:
            shown = f"page {url}/, " if has_page else ""
            output.note(f"serving {', '.join(service.served.names)}: {shown}requests {url}/docs. Ctrl-C stops")
            facts = {"url": url, "runs": list(service.served.names), "page": has_page, "pid": os.getpid()}
            output.json(facts)
            sys.stdout.flush()

        with noted_signals():  # uvicorn sends itself again what stopped it
            serve_until_stopped(
                app,
                service,
                listening,
                limits=limits,
                check_seconds=check_seconds,
                on_started=started,
                notify=output.note,
            )
    counts = service.batcher.counts
    output.note(f"stopped: {counts.answered:,} histories answered in {counts.batches:,} batches")


def _require_libraries() -> None:
    import importlib.util

    from athwe_core.errors import ConfigError

    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        rule = f"needs {', '.join(missing)}, not installed here"
        raise ConfigError("athwe serve", rule, remedy="Run: pip install 'athwe[serve]'")


def _keys(path: Path | None, host: str) -> tuple[str, ...]:
    """The keys of a file. Raises ConfigError where the address needs some, or one is too short."""
    from athwe_core.errors import ConfigError

    if path is None:
        if host not in LOCAL:
            rule = "must be this machine's own, 127.0.0.1, without --api-key-file"
            raise ConfigError("--host", rule, host, "Write a key to a file and add --api-key-file FILE")
        return ()
    try:
        keys = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())))
    except UnicodeDecodeError:
        raise ConfigError("--api-key-file", "must be a text file", str(path)) from None
    remedy = "Make one: python -c 'import secrets; print(secrets.token_urlsafe())' > keys.txt"
    if not keys or min(map(len, keys)) < SHORTEST_KEY:
        rule = f"must hold keys of {SHORTEST_KEY} characters or more, one a line"
        raise ConfigError("--api-key-file", rule, str(path), remedy)
    return keys


def _pictures(
    given: Path | None, data: Path, names: tuple[str, ...], dataset: str | None, runs: Path
) -> ImageSource | None:
    from athwe_core.data.features.image_files import ImageSource, find_images
    from athwe_core.runs.find import find_run

    if given is not None:
        return ImageSource.open(given)
    return find_images(data, str(find_run(runs, names[0], dataset=dataset).manifest()["data"]["name"]))


def _report(error: Exception, output: Output) -> None:
    """One line for an unexpected error; with --debug its traceback."""
    if debug["on"]:
        for line in "".join(traceback.format_exception(error)).splitlines():
            output.note(line)
        return
    place = traceback.extract_tb(error.__traceback__)[-1]
    output.note(f"unexpected error: {type(error).__name__}: {error} ({Path(place.filename).name} line {place.lineno})")
