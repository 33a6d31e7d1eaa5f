"""Made-up results in the shapes that the commands print, for figures and pages to be built against."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from athwe_core.analysis.audit.grade import findings

METRICS = [f"{name}@{k}" for name in ("ndcg", "mrr", "hit") for k in (5, 10, 20, 50)]


def spread(values: list[float]) -> dict[str, Any]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "values": values}


def metrics_at(level: float, seeds: int, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Every metric of both splits around a level of NDCG@10."""
    factor = {"ndcg": 1.0, "mrr": 0.78, "hit": 1.8}
    growth = {5: 0.83, 10: 1.0, 20: 1.17, 50: 1.4}
    return {
        split: {
            name: spread(
                [
                    scale * level * factor[name.split("@")[0]] * growth[int(name.split("@")[1])] * rng.normal(1, 0.012)
                    for _ in range(seeds)
                ]
            )
            for name in METRICS
        }
        for split, scale in (("validation", 1.1), ("test", 1.0))
    }


def experiment(
    kind: str,
    points: list[tuple[str, dict[str, Any], float]],
    *,
    seeds: int = 3,
    reference: int | None = 0,
    quick_epochs: int | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """A `result.json` of variants (label, values, level of NDCG@10)."""
    rng = np.random.default_rng(7)
    variants = [
        {
            "label": label,
            "values": values,
            "changes": [f"{key}={value}" for key, value in values.items()],
            "runs": [f"Toys_and_Games/athwe/{kind}-{number}-s{seed}" for seed in range(seeds)],
            "metrics": metrics_at(level, seeds, rng),
            "change_percent": None,
            "p_value": None,
            "p_holm": None,
            "epochs": [17] * seeds,
            "seconds_per_epoch": 15.1 + number,
            "parameters": 2_345_678 - 1000 * number,
        }
        for number, (label, values, level) in enumerate(points)
    ]
    if reference is not None:
        base = variants[reference]["metrics"][split]["ndcg@10"]["mean"]
        for number, variant in enumerate(variants):
            if number != reference:
                change = 100 * (variant["metrics"][split]["ndcg@10"]["mean"] / base - 1)
                variant |= {"change_percent": change, "p_value": 0.2 / (1 + change**2)}
                variant["p_holm"] = min(1.0, 3 * variant["p_value"])
    return {
        "kind": kind,
        "dataset": "Toys_and_Games",
        "preset": "athwe",
        "data_version": "b5dfc042f9eb",
        "tie_order": "item",
        "split_rule": "leave-one-out",
        "exclude_seen": False,
        "seeds": list(range(seeds)),
        "quick_epochs": quick_epochs,
        "metric": "ndcg@10",
        "split": split,
        "varied": list(dict.fromkeys(key for _, values, _ in points for key in values)) if kind == "sweep" else [],
        "variants": variants,
        "notes": ["removing TMoE removes PCL too: its placeholders are made of time"] if kind == "ablation" else [],
        "command": f"athwe {'ablate --all' if kind == 'ablation' else 'sweep'} --dataset Toys_and_Games",
        "athwe": {"version": "0.1.0", "git_commit": "0123456789abcdef0123456789abcdef01234567"},
        "folder": f"runs/Toys_and_Games/experiments/{kind}-20261121-101500",
    }


def ablation(**options: Any) -> dict[str, Any]:
    """Every removal of the preset athwe."""
    levels = {"full": 0.062, "-IMoE": 0.0605, "-TMoE": 0.0531, "-DWT": 0.0608, "-CP": 0.0612, "-IDCL": 0.0597}
    levels |= {"-PCL": 0.0588, "-Text": 0.0554, "-Image": 0.0591}
    return experiment("ablation", [(label, {}, level) for label, level in levels.items()], **options)


def sweep(key: str = "losses.pcl.weight", **options: Any) -> dict[str, Any]:
    """A weight over 0.1 to 1.5."""
    values = {0.1: 0.058, 0.3: 0.0604, 0.5: 0.0611, 0.7: 0.0617, 1.0: 0.062, 1.5: 0.0601}
    points = [(f"{value:g}", {key: value}, level) for value, level in values.items()]
    return experiment("sweep", points, **{"reference": 4, "split": "validation", **options})


def grid() -> dict[str, Any]:
    """Learning rates over three decades for each of two numbers of experts."""
    points = [
        (
            f"{lr:g}, {experts}",
            {"training.lr": lr, "model.temporal_moe.num_experts": experts},
            0.05 + up + 0.002 * experts,
        )
        for lr, up in ((1e-4, 0.0), (1e-3, 0.008), (1e-2, 0.004), (1e-1, -0.01))
        for experts in (2, 4)
    ]
    return experiment("sweep", points, reference=None, seeds=2)


def kinds() -> dict[str, Any]:
    """Kinds of time encoding."""
    levels = {"interval": 0.0592, "absolute": 0.0603, "interval+absolute": 0.062, "day": 0.0598, "day_of_year": 0.0571}
    levels |= {"cos": 0.0585, "saturating": 0.0611}
    points = [(label, {"model.time_encoding.kind": label}, level) for label, level in levels.items()]
    return experiment("sweep", points, reference=2, seeds=1, quick_epochs=5)


def epoch_records(
    epochs: int = 17, seed: int = 0, terms: tuple[str, ...] = ("ce", "cp", "idcl", "pcl")
) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`."""
    rng = np.random.default_rng(seed)
    records = []
    for epoch in range(1, epochs + 1):
        fall = np.exp(-epoch / 5)
        losses = {"ce": 6.4 + 2.4 * fall, "cp": 0.08 + 0.2 * fall, "idcl": 5.1 + fall, "pcl": 6.0 + 0.9 * fall}
        losses = {name: value + rng.normal(0, 0.01) for name, value in losses.items() if name in terms}
        value = 0.078 * (1 - fall) - 0.0004 * max(0, epoch - 12) + rng.normal(0, 0.0006)
        growth = {5: 0.7, 10: 0.85, 20: 1.0, 50: 1.2}
        validation = {f"ndcg@{k}": value * growth[k] for k in growth}
        records.append(
            {
                "epoch": epoch,
                "steps": 107,
                "losses": losses | {"total": sum(losses.values())},
                "validation": validation,
                "seconds": 15.0 + rng.normal(0, 0.3),
                "validation_seconds": 4.0,
            }
        )
    return records


def groups(level: float = 0.06) -> dict[str, dict[str, dict[str, float]]]:
    """What `group_metrics` returns."""
    shape = {
        "history_length": {
            "1-4": (5200, 0.9),
            "5-9": (9100, 1.0),
            "10-19": (3900, 1.1),
            "20-49": (1050, 1.3),
            "50+": (162, 1.2),
        },
        "target_popularity": {
            "0 (cold)": (420, 0.1),
            "1-4": (3300, 0.5),
            "5-9": (5600, 0.8),
            "10-49": (8300, 1.2),
            "50+": (1792, 1.6),
        },
        "same_day": {"later": (9894, 0.3), "same day": (9518, 1.7)},
    }
    return {
        kind: {
            label: {"users": users}
            | {f"{name}@{k}": level * up for name in ("ndcg", "mrr", "hit") for k in (5, 10, 20, 50)}
            for label, (users, up) in labels.items()
        }
        for kind, labels in shape.items()
    }


def timestamps() -> np.ndarray:
    """Times that pile up towards 2014, in whole days."""
    rng = np.random.default_rng(3)
    days = 11_000 + 5_200 * rng.beta(6, 1.2, 5_000)
    return days.astype(np.int64) * 86_400


class Pictures:
    """Thumbnails of every third item are missing."""

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.missing = missing

    def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
        """A drawing that depends on the id."""
        if item_id in self.missing:
            return None
        rng = np.random.default_rng(list(item_id.encode()))
        image = Image.new("RGB", (size, size), "white")
        draw = ImageDraw.Draw(image)
        for _ in range(5):
            x, y, r = rng.integers(10, size - 10, 3)
            r = 8 + int(r) // 4
            draw.ellipse(
                [int(x) - r, int(y) - r, int(x) + r, int(y) + r], fill=tuple(int(v) for v in rng.integers(40, 235, 3))
            )
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()


RUNS = ("Toys_and_Games/athwe/first", "Toys_and_Games/hm4sr/second")
TITLES = [
    "Wooden Alphabet Blocks, Set of 48 with Storage Cart",
    "Melody Garden Musical Activity Cube",
    "Floor Puzzle: Animals of the World (100 Pieces)",
    "Magnetic Drawing Board with Four Stamps",
    "Rainbow Stacking Rings",
    "Junior Drum Set with Real Sounds and a Microphone Stand for Aspiring Musicians Aged Three and Up",
    "Bath Toy Fishing Game",
    "Sing-Along Piano Mat",
    "Train Track Starter Set",
    "Plush Elephant, 12 Inches",
    "Kitchen Playset with Sounds",
    "Spinning Top, Tin",
    "Balance Bike, Red",
    "Card Game: Go Fish",
]
CATEGORIES = ["Building Toys", "Music & Sound", "Puzzles", "Arts & Crafts", "Baby & Toddler Toys"]
DAY = 86_400


def item(number: int) -> dict[str, Any]:
    return {
        "item_id": f"B00{number:04d}XYZ",
        "title": TITLES[number % len(TITLES)] + ("" if number < len(TITLES) else f" ({number})"),
        "category": CATEGORIES[number % len(CATEGORIES)],
    }


def shares(rng: np.random.Generator, *shape: int) -> list[Any]:
    """Numbers that sum to 1 over the last axis."""
    values = rng.gamma(0.8, 1.0, shape) + 0.01
    return (values / values.sum(-1, keepdims=True)).tolist()


def case(
    length: int = 7, *, runs: tuple[str, ...] = RUNS, seed: int = 0, k: int = 10, experts: int = 4
) -> dict[str, Any]:
    """What `case-study --json` prints, for a history of so many items; the second run has no wavelet stage."""
    rng = np.random.default_rng(seed)
    steps = [0, *rng.choice([0, 1, 3, 9, 40, 75, 400, 520], length).tolist()]
    days = 15_000 + np.cumsum(steps)
    dates = [str(np.datetime64(int(day), "D")) for day in days]
    gaps_ = [None, *(int(step) * DAY for step in steps[1:])]
    history = [
        {"position": p, **item(p), "date": dates[p], "timestamp": int(days[p]) * DAY, "gap_seconds": gaps_[p]}
        for p in range(length)
    ]
    target = item(length)
    ranks = dict(zip(runs, (3.0, 312.0), strict=False))
    return {
        "dataset": "Toys_and_Games",
        "data_version": "b5dfc042f9eb",
        "tie_order": "item",
        "split_rule": "leave-one-out",
        "split": "test",
        "user": "A1ZT4NG9QX2K7",
        "picked": f"improved: rank 312 -> 3 against {runs[-1]}",
        "history": history,
        "earlier_items": 0 if length < 50 else 12,
        "target": target
        | {"date": dates[-1], "timestamp": int(days[-1]) * DAY, "gap_seconds": gaps_[-1], "rank": 3.0, "ranks": ranks},
        "recommendations": {
            run: recommended(rng, [*first, 1, *range(length + 5, length + 20)][:k], target, length)
            for run, first in zip(runs, ([length + 2, length + 4, length], [length + 3, length + 1]), strict=False)
        },
        "why": {run: why(rng, history, target, ranks[run], experts, is_first=run == runs[0]) for run in runs},
        "runs": {
            run: {
                "preset": run.split("/")[1],
                "metric": "ndcg@20",
                "best_value": 0.0787 - 0.004 * at,
                "best_epoch": 14 + at,
            }
            for at, run in enumerate(runs)
        },
        "k": k,
        "exclude_seen": False,
    }


def recommended(
    rng: np.random.Generator, numbers: list[int], target: dict[str, str], length: int
) -> list[dict[str, Any]]:
    rows = []
    for rank, number in enumerate(numbers, 1):
        text, image = float(rng.normal(3, 1)), float(rng.normal(0.6, 1.2))
        parts = {"id": 12.0 - 0.3 * rank - text - image, "text": text, "image": image}
        found = item(number)
        rows.append(
            {"rank": float(rank), **found, "score": sum(parts.values()), "by_modality": parts}
            | {"in_history": number < length, "is_target": found["item_id"] == target["item_id"]}
        )
    return rows


def why(
    rng: np.random.Generator,
    history: list[dict[str, Any]],
    target: dict[str, str],
    rank: float,
    experts: int,
    *,
    is_first: bool,
) -> dict[str, Any]:
    n, parts = len(history), {"id": 4.4, "text": 3.1, "image": 0.9}
    labels = {"one day": DAY, "one week": 7 * DAY, "one year": 365 * DAY}
    without = [float(max(1, round(rank * 2 ** rng.normal(0.4, 1.5)))) for _ in range(n)]
    return {
        "first_position": 0,
        "subject": {"item_id": target["item_id"], "title": target["title"], "is_target": True},
        "by_modality": parts,
        "score": sum(parts.values()),
        "rank": rank,
        "temporal_gates": shares(rng, n, experts),
        "interactive_gates": {name: shares(rng, n, experts) for name in parts},
        "wavelet_energy": {
            "bands": ["low", "high 3", "high 2", "high 1"],
            "share": {name: sorted(shares(rng, 4), reverse=True) for name in parts},
        }
        if is_first
        else None,
        "frequency_energy": None,
        "attention": {name: shares(rng, 2, n) for name in parts},
        "attention_parts": {},
        "influence": []
        if n == 1
        else [
            {
                "position": p,
                "item_id": history[p]["item_id"],
                "rank_without": without[p],
                "rank_change": without[p] - rank,
                "score_change": float(rng.normal(-0.3, 0.5)),
            }
            for p in range(n)
        ],
        "gaps": []
        if n == 1
        else [
            {
                "label": label,
                "gap_seconds": gap,
                "rank": rank + extra,
                "score": 8.4 - 0.3 * extra,
                "kept": 10 - extra,
                "top": [],
            }
            for (label, gap), extra in zip(
                [("as it was", history[-1]["gap_seconds"]), *labels.items()], (0, 1, 2, 6), strict=True
            )
        ],
    }


def report(experiments: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What `collect_report` returns, for two runs."""
    from athwe_core.analysis.figures import plots as plots_module

    experiments = [ablation(), sweep(), kinds()] if experiments is None else experiments
    records = {"athwe/first": epoch_records(), "hm4sr/second": epoch_records(14, 1, ("ce", "cp", "idcl"))}
    by_row = {"athwe": groups(), "hm4sr": groups(0.054)}
    rng = np.random.default_rng(5)
    rows = [
        {
            "label": label,
            "runs": [f"Toys_and_Games/{label}/s{seed}" for seed in range(3)],
            "files": [],
            "seeds": [0, 1, 2],
            "preset": label,
            "metrics": metrics_at(level, 3, rng)["test"],
            "change_percent": change,
            "p_value": p,
            "p_holm": p,
            "p_over": None if p is None else "users and seeds",
            "devices": ["cpu"],
            "seconds_per_epoch": 15.1,
            "epochs": [17, 15, 16],
            "parameters": 2_345_678,
        }
        for label, level, change, p in (("hm4sr", 0.058, None, None), ("athwe", 0.062, 6.9, 0.0004))
    ]
    edges, counts = plots_module.time_bins(timestamps())
    return {
        "dataset": "Toys_and_Games",
        "data_version": "b5dfc042f9eb",
        "content_hash": "f3f1f8e7374a1109f02cb33ff894c95bb4925bd737a17e147f3d68acfc1f7a07",
        "tie_order": "item",
        "split_rule": "leave-one-out",
        "statistics": {
            "users": 19412,
            "items": 11924,
            "interactions": 167597,
            "sparsity": 0.99928,
            "actions_per_user": 8.6337,
            "actions_per_item": 14.0554,
            "tied_test_share": 0.4903,
            "features": {
                "text": {"width": 512, "missing": 0, "source": "txt_emb.npy"},
                "image": {"width": 512, "missing": 17, "source": "img_emb.npy"},
                "categories": {"count": 24, "source": "column category"},
            },
        },
        "notes": ["17 of 11924 items have no image vector (zero row)"],
        "written": "2026-11-21T10:15:00+00:00",
        "time_distribution": {"edges": edges.tolist(), "counts": counts.tolist()},
        "runs": [
            {
                "run": f"Toys_and_Games/{label}",
                "label": label,
                "preset": label.split("/")[0],
                "seed": 0,
                "started": "2026-11-21T09:39:44+00:00",
                "device": "cpu",
                "precision": "bf16",
                "data": {
                    "name": "Toys_and_Games",
                    "version": "b5dfc042f9eb",
                    "content_hash": "f3f1f8e7374a1109",
                    "tie_order": "item",
                },
                "versions": {
                    "athwe": "0.1.0",
                    "git_commit": "0123456789abcdef0123456789abcdef01234567",
                    "torch": "2.13.0",
                },
                "command": f"athwe train --dataset Toys_and_Games --preset {label.split('/')[0]}",
                "best_epoch": 14,
                "epochs": len(lines),
                "seconds_per_epoch": 15.0,
                "metric": "ndcg@20",
                "best_value": 0.078,
                "validation": {"ndcg@20": 0.078},
                "test": {"ndcg@20": 0.071},
                "again": f"athwe train --dataset Toys_and_Games --version b5dfc042f9eb --preset {label.split('/')[0]}",
                "records": lines,
            }
            for label, lines in records.items()
        ],
        "verdict": "athwe is ahead of hm4sr in NDCG@10 by 6.9%: 0.0620 against 0.0580, p < 0.001.",
        "baselines": {
            name: dict.fromkeys(METRICS, level)
            for name, level in (("popularity", 0.0049), ("last-item transition", 0.0472))
        },
        "comparison": {
            "dataset": "Toys_and_Games",
            "split": "test",
            "split_rule": "leave-one-out",
            "tie_order": "item",
            "exclude_seen": False,
            "test": "p is of a paired t-test over users and seeds, after Holm's correction",
            "best": {metric: "athwe" if metric.startswith("ndcg") else None for metric in METRICS},
            "notes": [],
            "users": 19412,
            "metric": "ndcg@10",
            "comparable": True,
            "differences": [],
            "rows": rows,
            "groups": {
                kind: {
                    bucket: {
                        "users": found["users"],
                        **{label: of[kind][bucket]["ndcg@10"] for label, of in by_row.items()},
                    }
                    for bucket, found in buckets.items()
                }
                for kind, buckets in groups().items()
            },
        },
        "groups": by_row,
        "experiments": experiments,
    }


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """What `draw_figures` returns for a made-up report."""
    from athwe_core.analysis.figures import plots
    from athwe_core.analysis.pages.download import page_figure

    records = {run["label"]: run["records"] for run in found["runs"]}
    groups_drawn = plots.groups_figure(found["groups"], "ndcg@10")
    return {
        "time": page_figure(
            plots.time_distribution(timestamps()), stem="time", title="Over time", description="30 bins"
        ),
        "curves": page_figure(plots.learning_curves(records), stem="curves", title="Learning", description="By epoch"),
        "groups": page_figure(groups_drawn, stem="groups", title="Groups", description="Bars"),
        "experiments": [
            page_figure(
                (plots.ablation_figure if result["kind"] == "ablation" else plots.sweep_figure)(result),
                stem=f"experiment-{number}",
                title=f"Experiment {number}",
                description="See the table",
            )
            for number, result in enumerate(found["experiments"])
        ],
    }


def audited() -> dict[str, Any]:
    """What an audit of a data set with ties, leakage, cold items and no images finds."""
    baselines = {"popularity": 0.0049, "last-item transition": 0.0472}
    facts: dict[str, Any] = {
        "dataset": "Toys_and_Games",
        "data_version": "b5dfc042f9eb",
        "split_rule": "leave-one-out",
        "tie_order": "item",
        "options": {"tie_order": "item", "min_interactions": 5},
        "statistics": report([])["statistics"]
        | {"tied_test_share": 0.49, "asked": {"validation": 19412, "test": 19412}},
        "baselines": {name: {"ndcg@5": value, "ndcg@10": value} for name, value in baselines.items()},
        "time": {"first": int(timestamps().min()), "last": int(timestamps().max()), "whole_days_share": 1.0},
        "counts": {
            "users": {"bins": {"4-7": 12673, "8-15": 5184, "16-31": 1193}, "quartiles": [5, 6, 9], "most": 31},
            "items": {"bins": {"4-7": 5035, "8-15": 3930, "256-511": 1}, "quartiles": [6, 9, 16], "most": 300},
        },
        "pairs": {"repeated": 0.0, "same_time": 0.469, "same_day": 0.469, "test_same_day": 0.49},
        "leakage": {"training_later": 0.145, "items_first_seen_later": 0.026},
        "cold": {"test_targets": 0.014, "items": 0.01, "test_targets_below_5": 0.257},
        "popularity": {"gini": 0.47, "top_1_percent": 0.0886, "top_10_percent": 0.377},
        "tie_orders": {"file": 0.027, "item": 0.0472, "random": None},
        "shuffle": {"ordered": 0.0472, "shuffled": 0.0107},
        "features": {
            "text": {
                **{
                    "width": 512,
                    "coverage": 1.0,
                    "duplicates": 0.002,
                    "norm_mean": 7.36,
                    "norm_sd": 0.66,
                    "norm_median": 7.3,
                },
                "mean_cosine": 0.45,
            },
            "image": None,
        },
    }
    return facts | {"findings": findings(facts)}
