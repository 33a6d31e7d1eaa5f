"""The findings of a case study as sentences: each takes numbers of one run's `why` and gives the main thing they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from athwe_core.analysis.case_study.result import BandEnergy, HistoryItem, Named, Why

LONGEST_TITLE = 70
CLOSE_TO_EVEN = 0.1
"""Weights of experts within this share of an even one do not stand out."""
_ISOLATES = dict.fromkeys(range(0x2066, 0x206A))
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MONTH = 30.4375 * _DAY


def quoted(title: str) -> str:
    """A title within a sentence: shortened, in quotation marks, its writing direction isolated from the rest."""
    text = " ".join(title.translate(_ISOLATES).split())
    if len(text) > LONGEST_TITLE:
        text = text[: LONGEST_TITLE - 1].rstrip() + "…"
    return f"“\u2068{text}\u2069”"


def name_of(item: Named) -> str:
    """The title of an item, its id where it has none, within a sentence."""
    return quoted(item["title"].strip() or item["item_id"])


def item_number(item: HistoryItem) -> int:
    """The number that readers know an item of the history by, from 1."""
    return item["position"] + 1


def gap_words(seconds: int | float) -> str:
    """A time between two items in words: `3 days`, `1 year 2 months`, `same time`."""
    if seconds < _MINUTE:
        return "same time" if seconds == 0 else counted(max(1, int(seconds)), "second")
    if seconds < _HOUR:
        return counted(int(seconds / _MINUTE), "minute")
    if seconds < _DAY:
        return counted(int(seconds / _HOUR), "hour")
    if seconds < 2 * _MONTH:
        return counted(int(seconds / _DAY), "day")
    if seconds < 365 * _DAY:
        return counted(int(seconds / _MONTH), "month")
    years, months = divmod(round(seconds / _MONTH), 12)
    return counted(years, "year") + (f" {counted(months, 'month')}" if months else "")


def rank_words(rank: float) -> str:
    """A rank with a comma between thousands; half ranks keep their half."""
    return f"{rank:,.10g}"


def rank_distance(rank: float, other: float) -> float:
    """How far apart two ranks are: 4 and 40 as far as 100 and 1000."""
    return abs(math.log(rank / other))


def counted(number: int, unit: str) -> str:
    """A number with its unit: `1 item`, `1,204 items`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def run_label(run: str) -> str:
    """The name of a run without its data set: `athwe/first` for `demo/athwe/first`."""
    return run.split("/", 1)[-1]


def ranks_by_run(ranks: Mapping[str, float]) -> str:
    """The rank of an item in each run: `rank 3 by athwe/first, rank 312 by hm4sr/second`."""
    return ", ".join(f"rank {rank_words(rank)} by {run_label(run)}" for run, rank in ranks.items())


def score(why: Why) -> str:
    """The subject's score, and its largest part where the model gives parts."""
    parts = why["by_modality"]
    total = f"{why['score']:.2f}".replace("-", "−")
    if not parts:
        return f"Its score is {total}."
    most = max(parts, key=lambda name: parts[name])
    listed = ", ".join(f"{name} {value:+.2f}".replace("-", "−") for name, value in parts.items())
    if len(parts) == 1:
        return f"Its score of {total} comes from {most} alone."
    return f"Its score of {total} is {listed}; {most} contributes most."


def stands_out(gates: Sequence[Sequence[float]] | Float[np.ndarray, "n E"]) -> bool:
    """Whether any weight is farther than `CLOSE_TO_EVEN` of an even share from it."""
    values = np.asarray(gates, float)
    return bool(np.max(np.abs(values * values.shape[1] - 1)) > CLOSE_TO_EVEN)


def no_expert(number: int) -> str:
    """What is to be seen where all weights of so many experts are close to even."""
    return f"No expert stands out: every weight is within {CLOSE_TO_EVEN:.0%} of the even share, {1 / number:.2f}."


def temporal_gates(gates: Sequence[Sequence[float]], window: Sequence[HistoryItem]) -> str:
    """The largest change of the gates from one item to the next, and the time between; `window` has their items."""
    values = np.asarray(gates, float)
    if not stands_out(values):
        return no_expert(values.shape[1])
    leader, even = int(values[-1].argmax()), 1 / values.shape[1]
    now = f"At the last item expert {leader + 1} leads with {values[-1, leader]:.2f}; even would be {even:.2f}."
    if len(values) == 1:
        return now
    moved = np.abs(np.diff(values, axis=0)).sum(1) / 2
    at = int(moved.argmax())
    if moved[at] < 0.01:
        return f"The gates hardly change over this history. {now}"
    change = values[at + 1] - values[at]
    expert = int(np.abs(change).argmax())
    earlier, later = window[at : at + 2]
    gap = later["gap_seconds"]
    after = f", {gap_words(gap)} later" if gap else ""
    before, then = values[at, expert], values[at + 1, expert]
    return (
        f"The largest change is from item {item_number(earlier)} to item {item_number(later)}{after}: "
        f"expert {expert + 1} goes from {before:.2f} to {then:.2f}. {now}"
    )


def interactive_gates(gates: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """The leading expert of each modality where one stands out, and how far the modalities agree."""
    means = {name: np.asarray(values, float).mean(0) for name, values in gates.items()}
    number = len(next(iter(means.values())))
    if not any(stands_out(values) for values in gates.values()):
        return no_expert(number)
    leading = {name: mean for name, mean in means.items() if stands_out([mean])}
    if not leading:
        return f"No expert stands out on average over the items; even would be {1 / number:.2f}."
    leaders = {name: int(mean.argmax()) for name, mean in leading.items()}
    listed = ", ".join(f"expert {leaders[name] + 1} in {name} ({leading[name][leaders[name]]:.2f})" for name in leading)
    same = len(leading) == len(means) > 1 and len(set(leaders.values())) == 1
    return f"The largest mean weights: {listed}; even would be {1 / number:.2f}." + (
        " All modalities favour the same expert." if same else ""
    )


def attention(weights: Mapping[str, Sequence[Sequence[float]]], window: Sequence[HistoryItem]) -> str:
    """The item with most attention, mean over encoders and layers."""
    mean = np.mean([np.asarray(layers, float).mean(0) for layers in weights.values()], axis=0)
    at = int(mean.argmax())
    if len(mean) == 1:
        return "The history has one item, which gets all attention."
    last = "" if at == len(mean) - 1 else f" The last item gets {mean[-1]:.0%}."
    return f"Most attention, {mean[at]:.0%}, goes to item {item_number(window[at])}, {name_of(window[at])}.{last}"


def attention_parts(weights: Mapping[str, Sequence[Sequence[float]]], window: Sequence[HistoryItem]) -> str:
    """The item to which each part alone gives most attention, mean over layers."""
    if len(window) == 1:
        return "The history has one item, which gets all attention."
    listed = []
    for name, layers in weights.items():
        mean = np.asarray(layers, float).mean(0)
        at = int(mean.argmax())
        listed.append(f"{name} attends most to item {item_number(window[at])} ({mean[at]:.0%})")
    return f"Each part alone: {', '.join(listed)}."


def influence(why: Why, history: Sequence[HistoryItem]) -> str:
    """The item whose absence changes the rank most."""
    rank, changes = why["rank"], why["influence"]
    if not changes:
        return "The history has one item, so none can be left out."
    most = max(changes, key=lambda entry: rank_distance(entry["rank_without"], rank))
    if most["rank_without"] == rank:
        most = max(changes, key=lambda entry: abs(entry["score_change"]))
        item, change = name_of(history[most["position"]]), f"{most['score_change']:+.2f}".replace("-", "−")
        return (
            f"Leaving out any one item keeps {_subject(why)} at rank {rank_words(rank)}. "
            f"Its score changes most without {item}: {change}."
        )
    item = name_of(history[most["position"]])
    return (
        f"Leaving out {item} moves {_subject(why)} from rank {rank_words(rank)} to {rank_words(most['rank_without'])}."
    )


def band_energy(energy: BandEnergy) -> str:
    """The modalities or layers with the largest and the smallest share of energy in the slowest band."""
    low = {name: float(np.nan_to_num(shares[0])) for name, shares in energy["share"].items()}
    steady, quick = max(low, key=lambda name: low[name]), min(low, key=lambda name: low[name])
    band = energy["bands"][0]
    if steady == quick:
        return f"{low[steady]:.0%} of the energy of {steady} is in the {band} band."
    return f"The {band} band holds {low[steady]:.0%} of the energy of {steady} and {low[quick]:.0%} of the energy of {quick}."


def gaps(why: Why, *, k: int) -> str:
    """The other gap that changes the rank most."""
    if len(why["gaps"]) < 2:
        return "The history has one item, so there is no gap to change."
    was, *others = why["gaps"]
    most = max(others, key=lambda gap: (rank_distance(gap["rank"], was["rank"]), -gap["kept"]))
    kept = f"{most['kept']} of the top {k} would stay"
    if most["rank"] == was["rank"]:
        return f"No other gap changes rank {rank_words(was['rank'])} of {_subject(why)}. After {most['label']} {kept}."
    moved = f"rank {rank_words(most['rank'])} instead of {rank_words(was['rank'])}"
    return f"After {most['label']} {_subject(why)} would have {moved}, and {kept}."


def _subject(why: Why) -> str:
    if why["subject"].get("is_chosen"):
        return name_of(why["subject"])
    return "the true next item" if why["subject"]["is_target"] else "the first recommendation"
