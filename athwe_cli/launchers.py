"""Where `ablate`, `sweep`, `table1` and `tune` train their runs: the options, and the connection to a Ray cluster."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athwe_cli.render import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from athwe_core.analysis.experiments.ray_launcher import RayLauncher
    from athwe_core.config import Config
    from athwe_core.data.prepare import PreparedDataset

Launcher = Annotated[
    str,
    typer.Option("--launcher", help="Where runs are trained: local, or ray (on a Ray cluster; needs the extra ray)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Ray cluster: HOST:PORT, or auto for that of this machine. Default: RAY_ADDRESS, else a Ray is started here.",
        metavar="ADDRESS",
        show_default=False,
    ),
]


def require_launcher(launcher: str, ray_address: str | None) -> None:
    """Refuse an unknown `--launcher`, one whose library is missing, and an address that none would use.

    Raises: ConfigError in each case.
    """
    from athwe_core.errors import ConfigError, require

    require(launcher in ("local", "ray"), "--launcher", "must be local or ray", launcher)
    if launcher == "ray" and importlib.util.find_spec("ray") is None:
        rule = "needs the library ray, which is not installed"
        raise ConfigError("--launcher ray", rule, remedy="Run: pip install 'athwe[ray]'")
    if launcher != "ray" and ray_address is not None:
        raise ConfigError("--ray-address", "is an option of --launcher ray", ray_address, "Add --launcher ray")


@contextmanager
def ray_or_none(
    launcher: str,
    ray_address: str | None,
    configs: Sequence[Config],
    *,
    jobs: int | None,
    runs: Path,
    found: PreparedDataset,
    output: Output,
) -> Iterator[RayLauncher | None]:
    """The launcher for runs on a Ray cluster, with a line about it; None where nothing is to be trained there."""
    if launcher != "ray" or not configs:
        yield None
        return
    from athwe_core.analysis.experiments.ray_launcher import ray_launcher

    folders = {"--runs": runs, "--prepared": found.path.parent.parent}
    with ray_launcher(configs, jobs=jobs, folders=folders, address=ray_address) as launched:
        output.note(str(launched))
        yield launched
