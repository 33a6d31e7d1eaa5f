"""What the facts of an audit mean for someone about to train: graded, with one line of advice each."""

from __future__ import annotations

from typing import Any

OK, LOOK, PROBLEM = "ok", "look", "problem"


def findings(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Grade the facts of `audit`.

    Returns: grade (`ok`, `look` or `problem`), title, fact, advice (empty where ok), in the order of the audit.
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


def _graded(value: float, *, look: float, problem: float) -> str:
    """The grade of a value of which less is better."""
    return PROBLEM if value >= problem else LOOK if value >= look else OK


def _finding(grade: str, title: str, fact: str, advice: str) -> dict[str, str]:
    return {"grade": grade, "title": title, "fact": fact, "advice": "" if grade == OK else advice}


def _ties(facts: dict[str, Any]) -> dict[str, str]:
    share = facts["statistics"]["tied_test_share"]
    days = " (times are whole days)" if facts["time"]["whole_days_share"] == 1 else ""
    return _finding(
        _graded(share, look=0.05, problem=0.6),
        "Equal times",
        f"{share:.1%} of the test items have the time of the item before{days}; ties are in {facts['tie_order']} order",
        "The order of ties decides these: name it with every result, and compare runs of one order only",
    )


def _tie_effect(facts: dict[str, Any]) -> dict[str, str]:
    known = {order: value for order, value in facts["tie_orders"].items() if value is not None}
    low, high = min(known.values()), max(known.values())
    spread = (high - low) / high if high else 0.0
    listed = ", ".join(f"{order} {value:.4f}" for order, value in known.items())
    return _finding(
        _graded(spread, look=0.05, problem=0.25),
        "What the tie order does",
        f"NDCG@10 of the last-item-transition baseline by order of ties: {listed}",
        "An order that scores far above random carries information that a user's next action does not have",
    )


def _repeats(facts: dict[str, Any]) -> dict[str, str]:
    share = facts["pairs"]["repeated"]
    return _finding(
        _graded(share, look=0.02, problem=0.3),
        "Repeated items",
        f"{share:.1%} of the interactions repeat an item of the same user",
        "Seen items stay in the ranking by default: decide on --exclude-seen, and say so",
    )


def _leakage(facts: dict[str, Any]) -> dict[str, str]:
    leakage = facts["leakage"]
    return _finding(
        _graded(leakage["training_later"], look=0.05, problem=0.5),
        "Time leakage",
        f"{leakage['training_later']:.1%} of the training interactions are later than the median test interaction, "
        f"{leakage['items_first_seen_later']:.1%} of the items first appear after it",
        "Leave-one-out lets training see the future of other users: check the finding with --split global-time",
    )


def _cold(facts: dict[str, Any]) -> dict[str, str]:
    cold = facts["cold"]
    return _finding(
        _graded(cold["test_targets"], look=0.01, problem=0.2),
        "Cold items",
        f"{cold['test_targets']:.1%} of the test targets never occur in training, "
        f"{cold['test_targets_below_5']:.1%} fewer than 5 times",
        "Their id was never learnt: only text and image can find them; read the group 0 (cold) of athwe evaluate",
    )


def _concentration(facts: dict[str, Any]) -> dict[str, str]:
    popularity = facts["popularity"]
    return _finding(
        _graded(popularity["gini"], look=0.7, problem=0.9),
        "Popularity",
        f"The top 1 % of the items have {popularity['top_1_percent']:.1%} of the training interactions "
        f"(Gini {popularity['gini']:.2f})",
        "A few items decide the averages: read the groups by popularity",
    )


def _order(facts: dict[str, Any]) -> dict[str, str]:
    ordered, shuffled = facts["shuffle"]["ordered"], facts["shuffle"]["shuffled"]
    kept = shuffled / ordered if ordered else 1.0
    return _finding(
        _graded(kept, look=0.7, problem=0.95),
        "Does order carry anything",
        f"NDCG@10 of the transition baseline: {ordered:.4f}, with shuffled histories {shuffled:.4f} ({kept:.0%} of it)",
        "Sequence order adds little here: a model without order is a baseline to beat",
    )


def _size(facts: dict[str, Any]) -> dict[str, str]:
    users = facts["statistics"]["asked"]["test"] if "asked" in facts["statistics"] else facts["statistics"]["users"]
    return _finding(
        PROBLEM if users < 200 else LOOK if users < 2000 else OK,
        "Size",
        f"{users:,} users are asked in test",
        "Differences between models are mostly noise at this size: use several seeds and paired tests",
    )


def _features(kind: str, facts: dict[str, Any] | None) -> list[dict[str, str]]:
    if facts is None:
        advice = f"The {kind} modality is off: see athwe prepare --help for {kind} encoders"
        return [_finding(LOOK, f"{kind.capitalize()} features", "there are none", advice)]
    return [
        _finding(
            _graded(1 - facts["coverage"], look=0.01, problem=0.3),
            f"{kind.capitalize()} coverage",
            f"{facts['coverage']:.1%} of the items have {kind} vectors, of width {facts['width']}",
            "Items without one get a zero row: complete the source where you can",
        ),
        _finding(
            _graded(facts["duplicates"], look=0.02, problem=0.3),
            f"{kind.capitalize()} duplicates",
            f"{facts['duplicates']:.1%} of the {kind} vectors equal another item's",
            "Items that cannot be told apart: look for placeholder texts or pictures",
        ),
        _finding(
            _graded(facts["mean_cosine"], look=0.5, problem=0.9),
            f"{kind.capitalize()} scale and spread",
            f"norm {facts['norm_mean']:.2f} ± {facts['norm_sd']:.2f}, mean cosine of two items {facts['mean_cosine']:.2f}",
            "Vectors share one direction: the network has to learn that away; a whitening may help, measure it",
        ),
    ]
