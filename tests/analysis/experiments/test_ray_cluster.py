"""How runs share a cluster, and what is refused before one is trained. What needs Ray itself is in test_ray_launcher.py."""

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import athwe_core
from athwe_core.analysis.experiments.ray_cluster import (
    Node,
    Share,
    _look_for,
    _process_as_before,
    load_ray,
    ray_cluster,
    share_of,
)
from athwe_core.config import Config
from athwe_core.errors import ConfigError

MakeConfig = Callable[..., Config]


def nodes(*sizes: tuple[int, int]) -> list[Node]:
    """Of so many CPUs and GPUs."""
    return [Node(f"{i}", f"10.0.0.{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "runs", "jobs", "expected"),
    [
        ([(16, 0), (16, 0)], 4, None, Share(4, 8, 0)),
        ([(16, 0), (16, 0)], 6, None, Share(6, 5, 0)),
        ([(16, 0), (16, 0)], 1, None, Share(1, 16, 0)),
        ([(16, 0), (4, 0)], 100, None, Share(20, 1, 0)),
        ([(16, 0), (4, 0)], 100, 2, Share(2, 8, 0)),
        ([(0, 0), (1, 0), (1, 0)], 2, None, Share(2, 1, 0)),
        ([(8, 2), (8, 0)], 9, None, Share(2, 4, 1)),
        ([(8, 2), (32, 4)], 9, None, Share(6, 4, 1)),
        ([(8, 2), (32, 4)], 9, 5, Share(5, 4, 1)),
        ([(1, 2)], 9, None, Share(1, 1, 1)),
    ],
)
def test_shares(
    sizes: list[tuple[int, int]], runs: int, jobs: int | None, expected: Share, tiny_config: MakeConfig
) -> None:
    configs = [tiny_config("training.device=auto")] * runs
    assert share_of(nodes(*sizes), configs, jobs=jobs) == expected


def test_runs_on_the_cpu_take_no_gpu(tiny_config: MakeConfig) -> None:
    configs = [tiny_config("training.device=cpu")] * 3
    assert share_of(nodes((8, 2), (8, 0)), configs, jobs=None) == Share(3, 4, 0)


@pytest.mark.parametrize(
    ("sizes", "device", "text"),
    [
        ([(8, 1)], "cuda:1", r"training.device must be auto, cpu or cuda with --launcher ray, .*, got 'cuda:1'"),
        ([(8, 0)], "cuda", r"training.device must be auto or cpu: no node of the Ray cluster has a GPU, got 'cuda'"),
        ([(0, 0)], "cpu", r"the Ray cluster must have a node with CPUs, got 1. Add one with ray start"),
        ([(0, 2)], "cuda", r"the Ray cluster must have a node with CPUs"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    sizes: list[tuple[int, int]], device: str, text: str, tiny_config: MakeConfig
) -> None:
    with pytest.raises(ConfigError, match=text):
        share_of(nodes(*sizes), [tiny_config(f"training.device={device}")], jobs=None)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^--launcher ray needs ray. Run: pip install 'athwe\[ray\]'$"):
        load_ray()


@pytest.mark.parametrize("address", ["ray://head:10001", "head", ":6379", "head:port"])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    refusal = pytest.raises(ConfigError, match=rf"--ray-address must be HOST:PORT or auto, got '{address}'")
    with refusal, ray_cluster(None, cpus=1):
        pass


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    match = r"--ray-address must be that of a running Ray cluster .*Connection refused.* Run ray start on its machines"
    with pytest.raises(ConfigError, match=match), ray_cluster("127.0.0.1:9", cpus=1):
        pass


def test_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHWE_A", "before")
    monkeypatch.delenv("ATHWE_B", raising=False)
    traced = faulthandler.is_enabled()
    with _process_as_before():
        os.environ.update(ATHWE_A="after", ATHWE_B="new")
        faulthandler.enable()
    assert os.environ["ATHWE_A"] == "before"
    assert "ATHWE_B" not in os.environ
    assert faulthandler.is_enabled() == traced


def test_a_node_tells_its_athwe_and_which_files_it_sees(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    files = [str(tmp_path / name) for name in ("there", "missing", "no/folder")]
    assert _look_for()(files) == (athwe_core.__version__, [True, False, False])


def test_a_node_without_athwe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "athwe_core", None)
    assert _look_for()([]) == (None, [])
