"""What trained runs gain without further training: averaged with each other, and mixed with a memory of transitions.

    python tests/benchmarks/score_mixtures.py RUN... [--split validation] [--users 5000]

    p(v) = (1 - w) softmax(mean over runs of log softmax(scores))(v) + w c(l, v) / sum_u c(l, u)

l is the user's last item, and c(l, v) is how often v directly followed l in the training sequences. Where nothing did, w = 0.
Prints the metrics for several weights w: choose on validation. The runs must be of one prepared version.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch

import athwe_core as athwe
from athwe_core.data.packing import pack
from athwe_core.data.rows import evaluation_rows
from athwe_core.evaluation.blocks import user_blocks
from athwe_core.evaluation.evaluate import sampled_rows
from athwe_core.evaluation.metrics import mean_metrics
from athwe_core.evaluation.ranking import target_ranks

warnings.filterwarnings("ignore", "Sparse invariant checks")
WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
BLOCK_USERS = 256


def followers(data: athwe.PreparedDataset) -> torch.Tensor:
    """(V, V) sparse: share of each item among those that directly followed another in training."""
    follows = data.split.is_training(len(data.item_ids))
    follows[data.offsets[:-1]] = False
    after = np.flatnonzero(follows)
    pairs = np.stack([data.item_ids[after - 1], data.item_ids[after]]).astype(np.int64)
    size = (data.num_item_rows, data.num_item_rows)
    counts = torch.sparse_coo_tensor(torch.from_numpy(pairs), torch.ones(len(after)), size).coalesce()
    total = torch.zeros(size[0]).index_add_(0, counts.indices()[0], counts.values())
    return torch.sparse_coo_tensor(counts.indices(), counts.values() / total[counts.indices()[0]], size).coalesce()


@torch.inference_mode()
def ranks_by_weight(runs: list[athwe.Run], split: str, users: int) -> dict[float, np.ndarray]:
    """Ranks of the held-out items of a sample of users, by weight of the memory."""
    data, memory = runs[0].data, followers(runs[0].data)
    length = max(run.model.max_length for run in runs)
    rows = sampled_rows(evaluation_rows(data.split, split, max_length=length), users)
    tables = [(run.model, run.model.item_table(), run.model.item_bias()) for run in runs]
    found: dict[float, np.ndarray] = {weight: np.zeros(len(rows)) for weight in WEIGHTS}
    for chosen in user_blocks(rows, most=BLOCK_USERS, workers=1):
        batch = pack(data, rows, chosen, max_length=length)
        row = np.searchsorted(rows.user_index, batch.user_index.numpy())
        logarithms = torch.zeros(len(row), data.num_item_rows)
        for model, table, bias in tables:
            scores = model.ranking_scores(batch, table, bias)
            scores[:, 0] = -1e9  # the padding
            logarithms += scores.log_softmax(1) / len(runs)
        probabilities = logarithms.softmax(1)
        last = torch.from_numpy(data.item_ids[rows.stop[row] - 1].astype(np.int64))
        share = memory.index_select(0, last).to_dense()
        knows = (share.sum(1) > 0).float()[:, None]
        for weight in WEIGHTS:
            mixed = torch.lerp(probabilities, share, weight * knows)
            found[weight][row] = target_ranks(mixed, batch.target_ids).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--users", type=int, default=10**9, help="rank a sample of so many users")
    parser.add_argument("--runs-dir", type=Path, default=None)
    parser.add_argument("--prepared", type=Path, default=None)
    typed = parser.parse_args()
    runs = [athwe.load_run(name, runs_dir=typed.runs_dir, prepared_dir=typed.prepared) for name in typed.runs]
    assert len({run.data.version for run in runs}) == 1, "the runs are of several prepared versions"
    print("| weight | NDCG@10 | NDCG@20 | Hit@10 |\n|---|---|---|---|")
    for weight, ranks in ranks_by_weight(runs, typed.split, typed.users).items():
        metrics = mean_metrics(ranks, (10, 20))
        print(f"| {weight:g} | {metrics['ndcg@10']:.4f} | {metrics['ndcg@20']:.4f} | {metrics['hit@10']:.4f} |")


if __name__ == "__main__":
    main()
