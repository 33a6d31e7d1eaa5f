"""Use the library without the command line: prepare the demo data, train a small network, rank items for a history.

    python examples/train_in_python.py

It takes less than a minute on two cores and writes to a temporary folder only.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from athwe_core.config import parse_override
from athwe_core.data.packing import pack_histories
from athwe_core.data.prepare import PrepareOptions, prepare
from athwe_core.models.inputs import adapt_to_data
from athwe_core.models.registry import build_config
from athwe_core.runs.checkpoint import load_weights
from athwe_core.runs.find import create_run
from athwe_core.training.build import build_setup
from athwe_core.training.loop import train

SETTINGS = ["training.epochs=4", "model.dropout=0.2", "training.batch_targets=512"]


class Lines:
    """A listener that prints one line per epoch."""

    def epoch_begins(self, epoch: int, *, epochs: int, steps: int, done: int, best: float | None) -> None:
        """Print nothing."""

    def step_ends(self, step: int, means: dict[str, float]) -> None:
        """Print nothing."""

    def epoch_ends(self, record: dict[str, Any], *, is_best: bool) -> None:
        """Print the validation metric."""
        print(f"epoch {record['epoch']}: validation NDCG@10 {record['validation']['ndcg@10']:.4f}")


def main() -> None:
    """Prepare, train and recommend."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        options = PrepareOptions(demo_users=500, demo_items=300)
        data = prepare("demo", data_dir=root, prepared_dir=root / "prepared", options=options)
        config, notes = adapt_to_data(build_config("athwe", map(parse_override, SETTINGS)), data)
        print(*notes, sep="\n")
        run = create_run(root / "runs", config, data, preset="athwe", name="example", command="example")
        print("test", train(run, data, listener=Lines()).results["test"])

        model = build_setup(config, data).model
        load_weights(run.best, model)
        model.eval()
        history = [3, 14, 15], [1_600_000_000, 1_600_086_400, 1_600_086_400]  # item ids, unix seconds
        with torch.no_grad():
            scores = model.user_vectors(pack_histories([history])) @ model.item_table().T
        scores[:, 0] = -torch.inf  # padding
        best = scores[0].topk(5).indices.tolist()
        print("next:", *[data.item_tokens[item] for item in best])


if __name__ == "__main__":
    main()
