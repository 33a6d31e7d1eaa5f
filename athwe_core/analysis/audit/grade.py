"""Grades of an audit's measures: what each means for somebody who is about to train, and what to type."""

from __future__ import annotations

import math
import shlex

from athwe_core.analysis.audit.result import FeatureFacts, Finding, Grade, Measures
from athwe_core.data.options import prepare_command

GRADES: tuple[Grade, ...] = ("problem", "look", "ok")
"""Worst first."""
IMAGE_ENCODER = "openai/clip-vit-base-patch32"
"""Named in the command that makes image vectors."""


def findings(facts: Measures) -> list[Finding]:
    """The findings of an audit, the worst first, else in the order of its measures.

    Args:
        facts: the measures.
    """
    found = [
        _ties(facts),
        _tie_effect(facts),
        _repeats(facts),
        _leakage(facts),
        _cold(facts),
        _concentration(facts),
        _order(facts),
        _size(facts),
    ]
    for kind in ("text", "image"):
        found += _features(kind, facts)
    return sorted(found, key=lambda finding: GRADES.index(finding["grade"]))


def _graded(value: float, *, look: float, problem: float) -> Grade:
    """The grade of a value of which less is better."""
    return "problem" if value >= problem else "look" if value >= look else "ok"


def _finding(grade: Grade, title: str, fact: str, meaning: str, *, advice: str, command: str = "") -> Finding:
    is_ok = grade == "ok"
    return {
        "grade": grade,
        "title": title,
        "fact": fact,
        "meaning": meaning,
        "advice": "" if is_ok else advice,
        "command": "" if is_ok else command,
    }


def _prepare(facts: Measures, **changes: object) -> str:
    """The command that prepares this version, with some options changed."""
    return prepare_command(facts["dataset"], {**facts["options"], **changes})


def _with_random_ties(facts: Measures) -> str:
    return "" if facts["tie_order"] == "random" else _prepare(facts, tie_order="random")


def _named(facts: Measures, command: str) -> str:
    """A command of athwe on the data set."""
    return f"athwe {command} --dataset {shlex.quote(facts['dataset'])}"


def _ties(facts: Measures) -> Finding:
    share = facts["statistics"]["tied_test_share"]
    days = " (times are whole days)" if facts["time"]["whole_days_share"] == 1 else ""
    return _finding(
        _graded(share, look=0.05, problem=0.6),
        "Equal times",
        f"{share:.1%} of the test items have the same time as the item before{days}; the tie order is {facts['tie_order']}",
        "Of two items with the same time nobody knows which came first. The tie order decides, and so it decides which "
        "one is the target",
        advice="Report the tie order with every result, and compare runs of one order only. Prepare the data in another "
        "order to see how much depends on it",
        command=_with_random_ties(facts),
    )


def _tie_effect(facts: Measures) -> Finding:
    known = {order: value for order, value in facts["tie_orders"].items() if value is not None}
    low, high = min(known.values()), max(known.values())
    spread = (high - low) / high if high else 0.0
    listed = ", ".join(f"{order} {value:.4f}" for order, value in known.items())
    return _finding(
        _graded(spread, look=0.05, problem=0.25),
        "Effect of the tie order",
        f"NDCG@10 of the last-item-transition baseline by tie order: {listed}",
        "The baseline recommends what most often followed the user's last item in training. An order in which it scores "
        "far above random gives away part of the answer, e.g. because neighbouring ids are similar products",
        advice="Such an order makes the task easier than it is in use: measure with random order too",
        command=_with_random_ties(facts),
    )


def _repeats(facts: Measures) -> Finding:
    share = facts["pairs"]["repeated"]
    return _finding(
        _graded(share, look=0.02, problem=0.3),
        "Repeated items",
        f"{share:.1%} of the interactions repeat an item of the same user",
        "Where users come back to items, results depend on whether items of the history may be recommended again. By default "
        "they may",
        advice="Decide on one rule, and report it. To train and measure with seen items left out",
        command=f"{_named(facts, 'train')} --set evaluation.exclude_seen=true",
    )


def _leakage(facts: Measures) -> Finding:
    leakage = facts["leakage"]
    return _finding(
        _graded(leakage["training_later"], look=0.05, problem=0.5),
        "Time leakage",
        f"{leakage['training_later']:.1%} of the training interactions are later than half of the test interactions, "
        f"{leakage['items_first_seen_later']:.1%} of the items first appear after that moment",
        "Leave-one-out tests each user on the last item, so training holds what other users did later: a model learns from "
        "a future that it would not know in use",
        advice="Repeat the experiment with one moment that divides training from test for all users",
        command=_prepare(facts, split="global-time"),
    )


def _cold(facts: Measures) -> Finding:
    cold = facts["cold"]
    return _finding(
        _graded(cold["test_targets"], look=0.01, problem=0.2),
        "Cold items",
        f"{cold['test_targets']:.1%} of the test targets never occur in training, "
        f"{cold['test_targets_below_5']:.1%} fewer than 5 times",
        "A model learns a vector for each item from its interactions. An item without any can only be ranked by its text and "
        "image",
        advice="After training, see how well the group 0 (cold) is ranked",
        command=_named(facts, "evaluate"),
    )


def _concentration(facts: Measures) -> Finding:
    popularity = facts["popularity"]
    return _finding(
        _graded(popularity["gini"], look=0.7, problem=0.9),
        "Popularity",
        f"The most popular 1% of the items have {popularity['top_1_percent']:.1%} of the training interactions "
        f"(Gini coefficient {popularity['gini']:.2f}: 0 = all items alike, 1 = one item has all)",
        "Where few items have most interactions, they decide every average, and recommending them to everybody scores well",
        advice="After training, see the groups by popularity of the target",
        command=_named(facts, "evaluate"),
    )


def _order(facts: Measures) -> Finding:
    ordered, shuffled = facts["shuffle"]["ordered"], facts["shuffle"]["shuffled"]
    kept = shuffled / ordered if ordered else 1.0
    return _finding(
        _graded(kept, look=0.7, problem=0.95),
        "Value of the order",
        f"NDCG@10 of the last-item-transition baseline: {ordered:.4f}, with shuffled histories {shuffled:.4f} "
        f"({kept:.0%} of it)",
        "If shuffling a history changes little, its order says little about the next item, and a sequential model has "
        "little to learn from it",
        advice="Check that a trained model is ahead of the popularity baseline, which the command prints beside it",
        command=_named(facts, "train"),
    )


def _size(facts: Measures) -> Finding:
    users = facts["statistics"]["asked"]["test"] if "asked" in facts["statistics"] else facts["statistics"]["users"]
    return _finding(
        "problem" if users < 200 else "look" if users < 2000 else "ok",
        "Size",
        f"{users:,} users have a test target",
        "With few test users the difference between two models is often chance",
        advice="Train with several seeds, and trust a difference only where its p-value is small",
        command=f"{_named(facts, 'table1')} --preset hm4sr --preset athwe --seeds 5",
    )


def _features(kind: str, facts: Measures) -> list[Finding]:
    found = facts["features"][kind]
    if found is None:
        return [_no_features(kind, facts)]
    return [
        _finding(
            _graded(1 - found["coverage"], look=0.01, problem=0.3),
            f"{kind.capitalize()} coverage",
            f"{found['coverage']:.1%} of the items have {kind} vectors, of width {found['width']}",
            f"An item without a vector gets a row of zeros, so the {kind} says nothing about it",
            advice=f"Complete the {kind}s of the source if you can, and prepare again",
            command=_prepare(facts),
        ),
        _finding(
            _graded(found["duplicates"], look=0.02, problem=0.3),
            f"{kind.capitalize()} duplicates",
            f"{found['duplicates']:.1%} of the {kind} vectors equal another item's",
            f"A model cannot tell items of equal vectors apart by their {kind}",
            advice=f"Look for placeholder {kind}s in the source",
        ),
        _scale(kind, found, facts),
        _finding(
            _graded(found["mean_cosine"], look=0.5, problem=0.9),
            f"{kind.capitalize()} spread",
            f"two random items have a cosine similarity of {found['mean_cosine']:.2f} on average "
            "(0 = unrelated, 1 = the same direction)",
            "Vectors that share one direction hide what tells the items apart",
            advice="Whitening the vectors, or another encoder, may help: measure it",
        ),
    ]


def _no_features(kind: str, facts: Measures) -> Finding:
    advice = "Give the items a file with columns title, brand or categories, and prepare again"
    command = _prepare(facts)
    if kind == "image":
        advice = (
            "Put pictures named by item id into the folder images of the data set, and prepare again with an encoder"
        )
        command = _prepare(facts, image_encoder=IMAGE_ENCODER)
    return _finding(
        "look",
        f"{kind.capitalize()} features",
        "none",
        f"Models that read {kind} vectors leave them out here",
        advice=advice,
        command=command,
    )


def _scale(kind: str, found: FeatureFacts, facts: Measures) -> Finding:
    usual = math.sqrt(found["width"])
    ratio = found["norm_median"] / usual
    doublings = abs(math.log2(ratio)) if ratio > 0 else 0.0
    is_kept = facts["options"].get("keep_feature_scale", False)
    command = _prepare(facts, keep_feature_scale=False) if is_kept else ""
    return _finding(
        _graded(doublings, look=1, problem=3),
        f"{kind.capitalize()} scale",
        f"the vectors have length {found['norm_mean']:.3g} ± {found['norm_sd']:.3g}, median {found['norm_median']:.3g} "
        f"(usual for their width: {usual:.3g}), {1 - found['coverage']:.1%} of the rows are zero",
        "Training is sensitive to the length of the vectors that a network reads",
        advice="Prepare again so that the lengths are brought to the usual ones"
        if command
        else "Scale the vectors of the source so that their median length is the usual one",
        command=command,
    )
