"""Shares of runs that are trained at once in this machine's processes: threads, and CUDA devices."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from athwe_core.analysis.experiments import launch
from athwe_core.analysis.experiments.launch import LocalLauncher, assignable_devices, local_launcher
from athwe_core.config import Config

MakeConfig = Callable[..., Config]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend that there are so many CUDA devices."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_devices_are_named_as_the_environment_names_them(
    tiny_config: MakeConfig, devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(2)
    configs = [tiny_config("training.device=cuda"), tiny_config("training.device=auto")]
    assert assignable_devices(configs) == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e1f")
    assert assignable_devices(configs) == ("3", "GPU-5e1f")
    assert assignable_devices([*configs, tiny_config("training.device=cuda:1")]) == ()


def test_threads_are_shared_equally_and_each_has_one_at_least(
    tiny_config: MakeConfig, devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    found = [local_launcher([tiny_config()], jobs=jobs) for jobs in (1, 3, 9)]
    assert found == [LocalLauncher(1, 7), LocalLauncher(3, 2), LocalLauncher(9, 1)]


def test_slots_have_the_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(launch, "ChildProcess", lambda module, document, **settings: started.append(settings))
    messages: launch.Messages = SimpleQueue()
    for slot in range(3):
        LocalLauncher(3, 2, ("4", "6")).start({}, slot=slot, messages=messages)
    LocalLauncher(1, 5).start({}, slot=0, messages=messages)
    environments = [settings["environment"] for settings in started]
    assert environments == [{"CUDA_VISIBLE_DEVICES": device} for device in ("4", "6", "4")] + [{}]
    assert [settings["threads"] for settings in started] == [2, 2, 2, 5]
