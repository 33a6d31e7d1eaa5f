"""Do the published networks and ours compute the same? Recorded outputs of a golden file against ours."""

from __future__ import annotations

from pathlib import Path

from athwe_core.errors import CheckpointError
from athwe_core.models.golden import Golden
from athwe_core.models.registry import DEFAULT_MODEL, find_model

TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-3


def parity_differences(path: Path, model: str = DEFAULT_MODEL) -> dict[str, float]:
    """Largest absolute difference from each recorded output that the published form defines.

    Args:
        path: a golden `.npz`.
        model: name of the model whose published form it records.
    Raises: CheckpointError when the file is no such archive or of another model; ConfigError for an unknown model.
    """
    spec, golden = find_model(model), Golden.read(path)
    if spec.golden_pairs is None:
        raise CheckpointError(f"model {model}", "has no published form to compare with")
    golden.require("out.*")
    recorded = golden.setting("model", model)
    if recorded != model:
        raise CheckpointError(str(path), f"must be of model {model}", recorded, f"Use --model {recorded}")
    pairs = spec.golden_pairs(golden)
    return {name: float((ours.double() - published.double()).abs().max()) for name, (ours, published) in pairs.items()}


def tolerance_of(model: str, output: str) -> float:
    """Largest difference allowed on an output: 1e-4 on states and losses, 1e-3 on scores, unless the model sets its own."""
    usual = SCORE_TOLERANCE if output.startswith("scores") else TOLERANCE
    return find_model(model).golden_tolerance.get(output, usual)
