"""A connection to a Ray cluster, what its nodes have, and how runs share it. The only module that imports ray."""

from __future__ import annotations

import faulthandler
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import athwe_core
from athwe_core.config import Config
from athwe_core.errors import ConfigError, require
from athwe_core.messages import reason
from athwe_core.warning_filters import warnings_as

CHECK_SECONDS = 120.0
"""How long the nodes may take to answer before the first run."""
CONNECT_SECONDS = 10.0
NO_CLUSTER = "must be that of a running Ray cluster to which this machine belongs"
START_IT = "Run ray start on its machines, this one too, or leave --ray-address out to start Ray here"
OBJECT_STORE_BYTES = 100 * 2**20
"""Of a Ray that is started here; only messages go through it."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster and what it offers to runs."""

    id: str
    address: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Share:
    """How runs share a cluster."""

    jobs: int
    """Runs at once."""
    cpus: int
    """Of each run, which are its threads."""
    gpus: int
    """Of each run, 0 or 1."""


def load_ray() -> Any:
    """Import ray.

    Raises: ConfigError where it is not installed.
    """
    hook = sys.excepthook
    try:
        with warnings_as("ignore"):
            import ray.exceptions  # noqa: PLC0415 - an extra
            import ray.util.scheduling_strategies  # noqa: PLC0415
    except ImportError:
        raise ConfigError("--launcher ray", "needs ray", remedy="Run: pip install 'athwe[ray]'") from None
    finally:
        sys.excepthook = hook
    return ray


@contextmanager
def ray_cluster(address: str | None, *, cpus: int) -> Iterator[list[Node]]:
    """Be connected to a cluster. A connection that this process has already is used, and left open.

    Args:
        address: `HOST:PORT` of the cluster, or `auto` for the one that this machine belongs to. None = RAY_ADDRESS, without
            which a Ray for this process alone is started here, listens on the loopback address, and is ended afterwards.
        cpus: of a Ray that is started here, >= 1.
    Yields: its nodes.
    Raises: ConfigError without ray, and where no cluster can be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("auto", "local"):
        _require_listener(address)
    with ExitStack() as stack:
        stack.enter_context(_process_as_before())
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address == "local":  # read when ray is imported: the address of the node is the loopback address
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        else:  # one attempt to connect: the default of 20 takes ten minutes
            os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        ray = load_ray()
        if not ray.is_initialized():
            _start_or_connect(ray, address, cpus, stack)
        yield [_node(facts) for facts in ray.nodes() if facts["Alive"]]


def _require_listener(address: str) -> None:
    """Refuse an address without a listener. Ray itself takes long to notice, and prints meanwhile."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        remedy = "Run this command on a machine of the cluster, with --ray-address auto"
        raise ConfigError("--ray-address", "must be HOST:PORT or auto", address, remedy)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError("--ray-address", f"{NO_CLUSTER} ({reason(error)})", address, START_IT) from None


def _start_or_connect(ray: Any, address: str, cpus: int, stack: ExitStack) -> None:
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        parent = os.environ.get("RAY_TMPDIR") or ("/tmp" if os.name == "posix" else None)  # a socket's path is short
        folder = tempfile.TemporaryDirectory(prefix="athwe-", dir=parent, ignore_cleanup_errors=True)
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"_temp_dir": stack.enter_context(folder)}
    handlers, logger = _handlers(), logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings_as("ignore"):
            ray.init(configure_logging=False, **options)
    except Exception as error:  # also AssertionError, and errors of its RPC library
        if address == "local":
            raise ConfigError("--launcher ray", f"cannot start Ray here ({reason(error)})") from error
        raise ConfigError("--ray-address", f"{NO_CLUSTER} ({reason(error)})", address, START_IT) from error
    finally:
        logger.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    stack.callback(ray.shutdown)


def _handlers() -> dict[int, Any]:
    """Signal handlers that this thread may set back."""
    is_main = threading.current_thread() is threading.main_thread()
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}


@contextmanager
def _process_as_before() -> Iterator[None]:
    """Put back what ray changes in this process: the environment, and whether fatal errors are traced."""
    environment, is_tracing = dict(os.environ), faulthandler.is_enabled()
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        if not is_tracing:
            faulthandler.disable()


def _node(facts: dict[str, Any]) -> Node:
    resources = facts["Resources"]
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return Node(facts["NodeID"], facts["NodeManagerAddress"], cpus, gpus)


def share_of(nodes: Sequence[Node], configs: Sequence[Config], *, jobs: int | None) -> Share:
    """Divide the cluster among the runs.

    Where the cluster has GPUs and the runs may use one, each run has one, and its part of the node's CPUs. Otherwise as many
    runs as possible are trained at once, each with the most CPUs that all of them can have.

    Args:
        nodes: of the cluster.
        configs: of the runs, at least one.
        jobs: runs at once at most, >= 1; None = as many as fit.
    Raises: ConfigError where a configuration numbers its device or needs a GPU that no node has, or where no run fits.
    """
    devices = {config.training.device for config in configs}
    for device in devices:
        rule = "must be auto, cpu or cuda with --launcher ray, which assigns the devices"
        require(device in ("auto", "cpu", "cuda", "mps"), "training.device", rule, device)
    gpus = int(bool(devices & {"auto", "cuda"}) and any(node.gpus for node in nodes))
    if "cuda" in devices and not gpus:
        raise ConfigError("training.device", "must be auto or cpu: no node of the Ray cluster has a GPU", "cuda")
    usable = [node for node in nodes if node.cpus > 0 and node.gpus >= gpus]
    if not usable:
        remedy = "Add one with ray start, or begin the head node with --num-cpus"
        raise ConfigError("the Ray cluster", "must have a node with CPUs", len(nodes), remedy)
    most = min(len(configs), jobs or len(configs))
    if gpus:
        cpus = max(1, min(node.cpus // node.gpus for node in usable))
        places = sum(min(node.gpus, node.cpus // cpus) for node in usable)
    else:
        most = min(most, _places(usable, 1))
        cpus = next(n for n in range(max(node.cpus for node in usable), 0, -1) if _places(usable, n) >= most)
        places = _places(usable, cpus)
    return Share(min(most, places), cpus, gpus)


def _places(nodes: Sequence[Node], cpus: int) -> int:
    """Runs with so many CPUs each that fit at once."""
    return sum(node.cpus // cpus for node in nodes)


def require_shared(nodes: Sequence[Node], folders: Mapping[str, Path]) -> None:
    """Check that each node has this version of athwe and sees the folders: it looks for a file that is written here.

    Args:
        nodes: of the cluster that this process is connected to.
        folders: option to folder, e.g. `--runs`. Each exists or can be made.
    Raises: ConfigError for a node that does not answer, has another athwe, or lacks a folder.
    """
    ray = load_ray()
    name = f".athwe-ray-{secrets.token_hex(8)}"
    files = {option: folder.absolute() / name for option, folder in folders.items()}
    looked = {}
    try:
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        for node in nodes:
            there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(_look_for()).options(scheduling_strategy=there)
            looked[node] = task.remote([str(file) for file in files.values()])
        for node, answer in looked.items():
            try:
                version, seen = ray.get(answer, timeout=CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                raise ConfigError(
                    f"node {node.address} of the Ray cluster", f"must answer ({reason(error)})"
                ) from error
            if version != athwe_core.__version__:
                remedy = "Install it there, where ray was started from"
                rule = f"must have athwe {athwe_core.__version__}"
                raise ConfigError(f"node {node.address} of the Ray cluster", rule, version, remedy)
            for (option, file), is_there in zip(files.items(), seen, strict=True):
                if not is_there:
                    rule = f"must be on a file system that all nodes share: node {node.address} does not see it"
                    remedy = f"Name such a folder with {option}"
                    raise ConfigError(option, rule, str(file.parent), remedy)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


def _look_for() -> Any:
    """The function that a node runs. It is not at the top level, so ray sends its code: the node may lack athwe."""

    def look(files: list[str]) -> tuple[str | None, list[bool]]:
        import contextlib  # noqa: PLC0415 - only this function is sent
        import importlib  # noqa: PLC0415
        import os  # noqa: PLC0415

        try:
            version = importlib.import_module("athwe_core").__version__
        except ImportError:
            version = None
        seen = []
        for file in files:
            with contextlib.suppress(OSError):
                os.listdir(os.path.dirname(file))  # a network file system looks again
            seen.append(os.path.exists(file))
        return version, seen

    return look
