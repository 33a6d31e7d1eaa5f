"""Time-aware, multi-modal sequential recommendation: prepare data, train models, evaluate and recommend.

    import athwe_core as athwe

    data = athwe.prepare("dataset/Beauty")                      # or athwe.load_dataset("Beauty")
    run = athwe.train(data, preset="athwe", seed=0)
    run.metrics["test"]["ndcg@10"]
    run.recommend(users=["A1", "A2"], k=10)                     # a polars frame

`help(athwe.train)` explains each part. Names are loaded when they are first used, so this import is light. Progress goes to
the logger `athwe` of the standard library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

__all__ = [
    "AthweError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EncodingSettings",
    "Listener",
    "LogListener",
    "Model",
    "ModelSpec",
    "NoMemoryError",
    "NonFiniteLossError",
    "PrepareOptions",
    "PreparedDataset",
    "Run",
    "__version__",
    "load_dataset",
    "load_run",
    "model_names",
    "prepare",
    "preset_names",
    "train",
]

if TYPE_CHECKING:
    from athwe_core.data.features.build import EncodingSettings
    from athwe_core.data.options import PrepareOptions
    from athwe_core.data.store.dataset import PreparedDataset
    from athwe_core.errors import AthweError, CheckpointError, ConfigError, DataError, NonFiniteLossError
    from athwe_core.library import load_dataset, load_run, prepare, train
    from athwe_core.library_run import Run
    from athwe_core.models.protocol import Model, ModelSpec
    from athwe_core.models.registry import model_names, preset_names
    from athwe_core.training.log_listener import LogListener
    from athwe_core.training.loop import Listener
    from athwe_core.training.out_of_memory import NoMemoryError
else:
    _MODULES = {
        "data.features.build": ("EncodingSettings",),
        "data.options": ("PrepareOptions",),
        "data.store.dataset": ("PreparedDataset",),
        "errors": ("AthweError", "CheckpointError", "ConfigError", "DataError", "NonFiniteLossError"),
        "library": ("load_dataset", "load_run", "prepare", "train"),
        "library_run": ("Run",),
        "models.protocol": ("Model", "ModelSpec"),
        "models.registry": ("model_names", "preset_names"),
        "training.log_listener": ("LogListener",),
        "training.loop": ("Listener",),
        "training.out_of_memory": ("NoMemoryError",),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
