"""Selecting the user of a case study: by id, at random, or by where two runs differ most."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from athwe_core.data.prepare import PreparedDataset
from athwe_core.errors import ConfigError, DataError
from athwe_core.evaluation.metrics import per_user_metrics
from athwe_core.runs.find import RunFolder

PICKS = ("improved", "failed", "typical")
PICK_METRIC_K = 10
"""`improved` and `failed` go by the change of NDCG at this cut-off, then by the change of rank."""
MOST_NAMES_COMPARED = 200_000


@dataclass(frozen=True)
class Case:
    """A history of n >= 1 items in time order, and the item that follows it."""

    user: str | None
    """Raw id; None = a new user who is not in the data."""
    split: str
    """`validation` or `test`."""
    item_ids: list[int]
    """(n,) internal ids, oldest first. All items before the target, not only the latest ones that a model reads."""
    timestamps: list[int]
    """(n,) unix seconds."""
    target: tuple[int, int] | None = None
    """Internal id and unix seconds of the item that follows; None for a new user."""
    picked: str | None = None
    """Why this user was picked; None where the user was named or drawn at random."""


def case_of_user(prepared: PreparedDataset, user: str, *, split: str, picked: str | None = None) -> Case:
    """The case of a user of the data set.

    Args:
        prepared: the data set.
        user: raw id.
        split: `validation` or `test`: the held-out item that is the target.
        picked: why this user was picked, if it was.
    Raises:
        DataError: There is no such user (similar ids are listed), or the user has no target in the split.
        ConfigError: An unknown split.
    """
    held_out = prepared.split.held_out(split)
    try:
        number = prepared.user_tokens.index(user)
    except ValueError:
        rule = f"must be one of the {prepared.num_users} users of {prepared.name}"
        raise DataError("--user", rule, user, near_ids(user, prepared.user_tokens) or "Try --random 1") from None
    row, start = int(held_out[number]), int(prepared.split.start[number])
    if row < 0:
        splits = [name for name in ("validation", "test") if prepared.split.held_out(name)[number] >= 0]
        remedy = f"Try --split {splits[0]}" if splits else "Try another user, or --random 1"
        raise DataError(f"user {user!r}", f"has no {split} item under the {prepared.split_rule} split", remedy=remedy)
    return Case(
        user=user,
        split=split,
        item_ids=prepared.item_ids[start:row].tolist(),
        timestamps=prepared.timestamps[start:row].tolist(),
        target=(int(prepared.item_ids[row]), int(prepared.timestamps[row])),
        picked=picked,
    )


def near_ids(text: str, known: Sequence[str]) -> str:
    """A remedy with at most three ids that are similar to `text`; empty where there are none."""
    if len(known) > MOST_NAMES_COMPARED:
        known = [name for name in known if name[:2] == text[:2]][:MOST_NAMES_COMPARED]
    near = difflib.get_close_matches(text, known, n=3)
    return f"Similar ids: {', '.join(map(repr, near))}" if near else ""


def random_users(prepared: PreparedDataset, count: int, *, split: str, seed: int = 0) -> list[str]:
    """Different users with a target in `split`, drawn at random.

    Args:
        prepared: the data set.
        count: how many, >= 1.
        split: `validation` or `test`.
        seed: of the draw.
    Returns: raw ids.
    Raises:
        ConfigError: There are not that many users, or `count` is below 1.
    """
    users = prepared.split.users(split)
    if not 1 <= count <= len(users):
        raise ConfigError("--random", f"must be in 1..{len(users)}, the users with a {split} target", count)
    chosen = np.random.default_rng(seed).choice(users, count, replace=False)
    return [prepared.user_tokens[user] for user in chosen]


def pick_user(kind: str, run: RunFolder, against: RunFolder | None = None, *, split: str) -> tuple[str, str]:
    """The user whose rank changed most between two runs, or a typical user, from the ranks that the runs stored.

    Args:
        kind: `improved`: largest gain of NDCG@10 over `against`, then of rank; `failed`: largest loss; `typical`: the rank
            nearest to the median of `run`. Ties go to the first user.
        run, against: finished runs on the same data.
        split: `validation` or `test`.
    Returns: raw user id, and why this user.
    Raises:
        ConfigError: The kind is unknown, or `against` is missing where it is needed.
        CheckpointError: A run has no ranks of the split.
        DataError: Nobody improved or failed, or only one of the runs leaves seen items out.
    """
    if kind not in PICKS:
        raise ConfigError("--pick", f"must be one of {', '.join(PICKS)}", kind)
    frame = run.ranks(split)
    users, ranks = frame["user_id"].to_list(), frame["rank"].to_numpy()
    if kind == "typical":
        middle = median(ranks.tolist())
        index = int(np.argmin(np.abs(ranks - middle)))
        return users[index], f"typical: rank {ranks[index]:g}, the median of {run.name} is {middle:g}"
    if against is None:
        raise ConfigError("--pick", f"{kind} needs a run to compare with", remedy="Add --against RUN")
    _require_same_rule(run, against)
    others = dict(against.ranks(split).select("user_id", "rank").iter_rows())
    before = np.array([others.get(user, np.nan) for user in users])
    if np.isnan(before).any():
        missing = users[int(np.isnan(before).argmax())]
        raise DataError(f"ranks of {against.name}", f"must be of the users of {run.name}: {missing!r} is missing")
    gains = _largest_gain(ranks, before) if kind == "improved" else _largest_gain(before, ranks)
    if gains is None:
        rule = f"must have a user who {kind} in NDCG@{PICK_METRIC_K} against {against.name}"
        raise DataError(f"run {run.name}", rule, remedy="Try --pick typical")
    return users[gains], f"{kind}: rank {before[gains]:g} -> {ranks[gains]:g} against {against.name}"


def _largest_gain(ranks: NDArray[np.float64], before: NDArray[np.float64]) -> int | None:
    """First user with the largest gain of NDCG from `before` to `ranks`, then of rank; None where nobody gains."""
    key = f"ndcg@{PICK_METRIC_K}"
    gain = per_user_metrics(ranks, (PICK_METRIC_K,))[key] - per_user_metrics(before, (PICK_METRIC_K,))[key]
    first = int(np.lexsort((ranks - before, -gain))[0])
    return first if gain[first] > 0 else None


def _require_same_rule(run: RunFolder, against: RunFolder) -> None:
    ours, theirs = (folder.config().evaluation.exclude_seen for folder in (run, against))
    if ours != theirs:
        rule = f"must rank seen items as {against.name} does to be compared user by user"
        raise DataError(f"run {run.name}", rule, f"evaluation.exclude_seen={str(ours).lower()}", "Use --user")
