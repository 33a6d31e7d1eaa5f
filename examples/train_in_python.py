"""The library without the command line: prepare the demo data, train a small model, evaluate it and recommend items.

    python examples/train_in_python.py

Takes under a minute on two cores; writes to a temporary folder.
"""

import logging
import tempfile
from pathlib import Path

import athwe_core as athwe


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows the progress
    size = athwe.PrepareOptions(demo_users=500, demo_items=300)
    data = athwe.prepare("demo", options=size, prepared_dir=folder / "prepared")
    settings = {"training.epochs": 2, "training.batch_targets": 512}
    run = athwe.train(data, preset="athwe", seed=0, set=settings, runs_dir=folder / "runs")
    print(run, f"test NDCG@10 {run.metrics['test']['ndcg@10']:.4f}")
    print("without seen items:", run.evaluate(split="test", exclude_seen=True)["metrics"]["ndcg@10"])
    print(run.recommend(users=data.user_tokens[:2], k=3))
    visits = [{"user_id": "new", "item_id": data.item_tokens[3], "timestamp": 1_600_000_000}]
    print(run.recommend(histories=visits, k=5))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
