"""Grades of an audit's measures, with one line of advice each for somebody who is about to train."""

from __future__ import annotations

import math

from athwe_core.analysis.audit.result import FeatureFacts, Finding, Grade, Measures

GRADES: tuple[Grade, ...] = ("problem", "look", "ok")
"""Worst first."""


def findings(facts: Measures) -> list[Finding]:
    """The findings of an audit, in the order of its measures.

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
        found += _features(kind, facts["features"][kind])
    return found


def _graded(value: float, *, look: float, problem: float) -> Grade:
    """The grade of a value of which less is better."""
    return "problem" if value >= problem else "look" if value >= look else "ok"


def _finding(grade: Grade, title: str, fact: str, advice: str) -> Finding:
    return {"grade": grade, "title": title, "fact": fact, "advice": "" if grade == "ok" else advice}


def _ties(facts: Measures) -> Finding:
    share = facts["statistics"]["tied_test_share"]
    days = " (times are whole days)" if facts["time"]["whole_days_share"] == 1 else ""
    return _finding(
        _graded(share, look=0.05, problem=0.6),
        "Equal times",
        f"{share:.1%} of the test items have the same time as the item before{days}; the tie order is {facts['tie_order']}",
        "The tie order decides these targets: report it with every result, and compare runs of one order only",
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
        "A tie order that scores far above random carries information that a model would not have in use",
    )


def _repeats(facts: Measures) -> Finding:
    share = facts["pairs"]["repeated"]
    return _finding(
        _graded(share, look=0.02, problem=0.3),
        "Repeated items",
        f"{share:.1%} of the interactions repeat an item of the same user",
        "Seen items stay in the ranking by default: decide on --exclude-seen, and report it",
    )


def _leakage(facts: Measures) -> Finding:
    leakage = facts["leakage"]
    return _finding(
        _graded(leakage["training_later"], look=0.05, problem=0.5),
        "Time leakage",
        f"{leakage['training_later']:.1%} of the training interactions are later than the median test interaction, "
        f"{leakage['items_first_seen_later']:.1%} of the items first appear after it",
        "Leave-one-out lets training see the future of other users: repeat the experiment with --split global-time",
    )


def _cold(facts: Measures) -> Finding:
    cold = facts["cold"]
    return _finding(
        _graded(cold["test_targets"], look=0.01, problem=0.2),
        "Cold items",
        f"{cold['test_targets']:.1%} of the test targets never occur in training, "
        f"{cold['test_targets_below_5']:.1%} fewer than 5 times",
        "A cold item has no trained embedding, so only text and image can rank it: see the group 0 (cold) of athwe evaluate",
    )


def _concentration(facts: Measures) -> Finding:
    popularity = facts["popularity"]
    return _finding(
        _graded(popularity["gini"], look=0.7, problem=0.9),
        "Popularity",
        f"The top 1 % of the items have {popularity['top_1_percent']:.1%} of the training interactions "
        f"(Gini {popularity['gini']:.2f})",
        "A few items decide the averages: see the groups by popularity of athwe evaluate",
    )


def _order(facts: Measures) -> Finding:
    ordered, shuffled = facts["shuffle"]["ordered"], facts["shuffle"]["shuffled"]
    kept = shuffled / ordered if ordered else 1.0
    return _finding(
        _graded(kept, look=0.7, problem=0.95),
        "Value of the order",
        f"NDCG@10 of the transition baseline: {ordered:.4f}, with shuffled histories {shuffled:.4f} ({kept:.0%} of it)",
        "The order of the history adds little here: compare with a model that ignores it",
    )


def _size(facts: Measures) -> Finding:
    users = facts["statistics"]["asked"]["test"] if "asked" in facts["statistics"] else facts["statistics"]["users"]
    return _finding(
        "problem" if users < 200 else "look" if users < 2000 else "ok",
        "Size",
        f"{users:,} users have a test target",
        "Small differences between models are noise at this size: use several seeds and paired tests",
    )


def _features(kind: str, facts: FeatureFacts | None) -> list[Finding]:
    if facts is None:
        advice = f"Models without {kind} vectors leave the {kind} modality out: see athwe prepare --help for encoders"
        return [_finding("look", f"{kind.capitalize()} features", "none", advice)]
    return [
        _finding(
            _graded(1 - facts["coverage"], look=0.01, problem=0.3),
            f"{kind.capitalize()} coverage",
            f"{facts['coverage']:.1%} of the items have {kind} vectors, of width {facts['width']}",
            "An item without a vector gets a row of zeros: complete the source if you can",
        ),
        _finding(
            _graded(facts["duplicates"], look=0.02, problem=0.3),
            f"{kind.capitalize()} duplicates",
            f"{facts['duplicates']:.1%} of the {kind} vectors equal another item's",
            "The model cannot tell these items apart: look for placeholder texts or images",
        ),
        _scale(kind, facts),
        _finding(
            _graded(facts["mean_cosine"], look=0.5, problem=0.9),
            f"{kind.capitalize()} spread",
            f"mean cosine of two items {facts['mean_cosine']:.2f}",
            "The vectors share one direction, which hides their differences: whitening may help, so measure it",
        ),
    ]


def _scale(kind: str, facts: FeatureFacts) -> Finding:
    usual = math.sqrt(facts["width"])
    ratio = facts["norm_median"] / usual
    doublings = abs(math.log2(ratio)) if ratio > 0 else 0.0
    return _finding(
        _graded(doublings, look=1, problem=3),
        f"{kind.capitalize()} scale",
        f"row lengths {facts['norm_mean']:.3g} ± {facts['norm_sd']:.3g}, median {facts['norm_median']:.3g} "
        f"(usual: {usual:.3g}), {1 - facts['coverage']:.1%} of the rows are zero",
        "Training is sensitive to the scale: prepare again without --keep-feature-scale",
    )
