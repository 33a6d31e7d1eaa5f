"""A case study as its page shows it: texts written out, bars and strips measured, pictures encoded.

Lengths of bars are percent of their row's width, shades of strips opacities from 0 to 1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from athwe_core.analysis.case_study import sentences

MOST_INFLUENCES = 12
"""Bars in the panel of influence; its table has all items."""
MOST_AXIS_LABELS = 10
FAINTEST = 0.05
_INK_OF_BANDS = (1.0, 0.68, 0.44, 0.26, 0.16)


class Thumbnails(Protocol):
    """Pictures by item id; `athwe_core.data.features.image_files.ImageSource` is one."""

    def thumbnail(self, item_id: str, size: int = 112) -> bytes | None:
        """JPEG of at most `size` pixels a side, None where there is no picture."""


def case_view(case: Mapping[str, Any], images: Thumbnails | None, *, number: int) -> dict[str, Any]:
    """Everything the template of one case needs.

    Args:
        number: from 0, of the case within its page.
    """
    pictures = _Pictures(images)
    short = short_names(case["runs"])
    history, target = case["history"], case["target"]
    return {
        "number": number,
        "anchor": f"case-{number + 1}",
        "user": case["user"],
        "picked": case["picked"] and case["picked"].replace("->", "→"),
        "split": case["split"],
        "k": case["k"],
        "earlier_items": case["earlier_items"],
        "headline": _headline(case),
        "history": [pictures.shown(item) | {"gap": _gap(item), "at": sentences.item_number(item)} for item in history],
        "target": None
        if target is None
        else pictures.shown(target)
        | {
            "gap": _gap(target),
            "ranks": [(short[run], sentences.rank_words(rank)) for run, rank in target["ranks"].items()],
        },
        "recommendations": [
            {"run": run, "label": short[run], "rows": [pictures.shown(row) for row in rows], "bars": score_bars(rows)}
            for run, rows in case["recommendations"].items()
        ],
        "modalities": list(next(iter(case["why"].values()))["by_modality"]) if case["why"] else [],
        "why": [
            {"run": run, "label": short[run], **_subject(why, pictures), "columns": _columns(why, case, pictures)}
            for run, why in case["why"].items()
        ],
    }


def short_names(runs: Iterable[str]) -> dict[str, str]:
    """Run to preset/name, without the data set that all share."""
    return {run: sentences.run_label(run) for run in runs}


def score_bars(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Parts of each row's score on one scale: what adds to it right of `zero`, what takes from it left of `zero`."""
    low = min([0.0, *(sum(min(x, 0.0) for x in row["by_modality"].values()) for row in rows)])
    high = max([0.0, *(sum(max(x, 0.0) for x in row["by_modality"].values()) for row in rows)])
    scale = 100 / ((high - low) or 1)
    found = []
    for row in rows:
        left = right = -low * scale
        parts = []
        for name, value in row["by_modality"].items():
            width = abs(value) * scale
            left, start, right = (left, right, right + width) if value >= 0 else (left - width, left - width, right)
            parts.append({"name": name, "x": round(start, 2), "width": round(width, 2), "value": value})
        found.append({"zero": round(-low * scale, 2), "parts": parts})
    return found


class _Pictures:
    """Data URLs of thumbnails, each read once."""

    def __init__(self, images: Thumbnails | None) -> None:
        self._images = images
        self._known: dict[str, str | None] = {}

    def shown(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item with its picture as a `data:` URL or None, and what stands in for it."""
        title = str(item["title"]).strip() or str(item["item_id"])
        return dict(item) | {"title": title, "picture": self._url(item["item_id"]), "initials": _initials(title)}

    def _url(self, item_id: str) -> str | None:
        if item_id not in self._known:
            content = self._images.thumbnail(item_id, size=112) if self._images is not None else None
            encoded = None if content is None else base64.b64encode(content).decode()
            self._known[item_id] = None if encoded is None else f"data:image/jpeg;base64,{encoded}"
        return self._known[item_id]


def _initials(title: str) -> str:
    """First letters of the first two words that begin with a letter or digit."""
    letters = [word[0] for word in title.split() if word[0].isalnum()]
    return "".join(letters[:2]).upper() or "?"


def _gap(item: Mapping[str, Any]) -> str | None:
    return None if item["gap_seconds"] is None else sentences.gap_words(item["gap_seconds"])


def _headline(case: Mapping[str, Any]) -> str:
    target = case["target"]
    if target is None:
        return f"A history of {len(case['history'])} items, and what would come next."
    return f"Next came {sentences.name_of(target)}: {sentences.ranks_by_run(target['ranks'])}."


def _subject(why: Mapping[str, Any], pictures: _Pictures) -> dict[str, Any]:
    return {
        "subject": pictures.shown(why["subject"]),
        "rank": sentences.rank_words(why["rank"]),
        "score_sentence": sentences.score(why),
        "score_bar": score_bars([why])[0],
    }


def _columns(why: Mapping[str, Any], case: Mapping[str, Any], pictures: _Pictures) -> list[list[dict[str, Any]]]:
    """Panels side by side where there is room: what would change and what time does, beside what each modality does."""
    history, window = case["history"], case["history"][why["first_position"] :]
    left, right = [], []
    if why["influence"]:
        left.append(_influence(why, history, pictures))
    if why["gaps"]:
        left.append(_gaps(why, k=case["k"]))
    if why["temporal_gates"]:
        left.append(
            {
                "title": "Temporal gates",
                "explanation": "How much each expert of the Temporal MoE has to say at each item; time alone decides.",
                "finding": sentences.temporal_gates(why["temporal_gates"], window),
                **_strips({"": np.transpose(why["temporal_gates"])}, "expert", window),
            }
        )
    if why["wavelet_energy"]:
        left.append(_wavelet(why["wavelet_energy"]))
    if why["interactive_gates"]:
        gates = {modality: np.transpose(values) for modality, values in why["interactive_gates"].items()}
        right.append(
            {
                "title": "Interactive gates",
                "explanation": "How the experts of the Interactive MoE share the work on each item, for each modality.",
                "finding": sentences.interactive_gates(why["interactive_gates"]),
                **_strips(gates, "expert", window),
            }
        )
    right.append(
        {
            "title": "Attention of the last position",
            "explanation": "Which items the prediction looks at, in each layer of each modality, mean over heads.",
            "finding": sentences.attention(why["attention"], window),
            **_strips({modality: np.asarray(layers) for modality, layers in why["attention"].items()}, "layer", window),
        }
    )
    return [column for column in (left, right) if column]


def _strips(rows_of: Mapping[str, Any], name: str, window: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Strips on one scale, (rows, positions) for each modality, or for "" where there is none; with the axis below."""
    largest = max(float(np.max(rows)) for rows in rows_of.values()) or 1.0
    every = -(-len(window) // MOST_AXIS_LABELS)
    shown = [(len(window) - 1 - at) % every == 0 for at in range(len(window))]
    return {
        "kind": "strips",
        "groups": [
            {
                "modality": modality,
                "rows": [
                    {
                        "label": f"{name} {number}",
                        "cells": [_cell(*pair, largest) for pair in zip(window, row, strict=True)],
                    }
                    for number, row in enumerate(rows, 1)
                ],
            }
            for modality, rows in rows_of.items()
        ],
        "largest": largest,
        "axis": [sentences.item_number(item) if is_shown else "" for item, is_shown in zip(window, shown, strict=True)],
        "items": [(sentences.item_number(item), item["date"]) for item in window],
    }


def _cell(item: Mapping[str, Any], value: float, largest: float) -> dict[str, Any]:
    return {
        "value": float(value),
        "shade": round(FAINTEST + (1 - FAINTEST) * max(0.0, float(value)) / largest, 3),
        "hint": f"item {sentences.item_number(item)}, {item['date']}: {value:.3f}",
    }


def _gaps(why: Mapping[str, Any], *, k: int) -> dict[str, Any]:
    return {
        "kind": "gaps",
        "title": "What another gap would change",
        "explanation": "The same history, its last item moved to another time after the one before; and how many of the "
        f"top {k} stay.",
        "finding": sentences.gaps(why, k=k),
        "k": k,
        "rows": [
            {**gap, "rank": sentences.rank_words(gap["rank"]), "words": sentences.gap_words(gap["gap_seconds"])}
            for gap in why["gaps"]
        ],
    }


def _influence(why: Mapping[str, Any], history: Sequence[Mapping[str, Any]], pictures: _Pictures) -> dict[str, Any]:
    """Ranks without each item, as bars of the logarithm of how many times larger or smaller they are."""
    rows = []
    for entry in why["influence"]:
        weight = float(np.log2(entry["rank_without"] / why["rank"]))
        shown = pictures.shown(history[entry["position"]])
        rank = sentences.rank_words(entry["rank_without"])
        rows.append({**shown, **entry, "at": entry["position"] + 1, "weight": weight, "rank_without": rank})
    largest = max(1.0, *(abs(row["weight"]) for row in rows))
    for row in rows:
        row["width"] = round(50 * abs(row["weight"]) / largest, 2)
        row["x"] = 50.0 if row["weight"] >= 0 else 50 - row["width"]
    strongest = sorted(rows, key=lambda row: -abs(row["weight"]))[:MOST_INFLUENCES]
    return {
        "kind": "influence",
        "title": "Influence of each item",
        "explanation": "The rank when one item of the history is left out. To the right: it helped; to the left: it was "
        "in the way. The scale is logarithmic: from 4 to 8 is as far as from 40 to 80.",
        "finding": sentences.influence(why, history),
        "rank": sentences.rank_words(why["rank"]),
        "rows": sorted(strongest, key=lambda row: row["at"]),
        "all_rows": rows,
    }


def _wavelet(energy: Mapping[str, Any]) -> dict[str, Any]:
    bands = energy["bands"]
    shades = [_INK_OF_BANDS[min(at, len(_INK_OF_BANDS) - 1)] for at in range(len(bands))]
    rows = []
    for modality, given in energy["share"].items():
        shares = np.nan_to_num(given).tolist()  # nothing at all has no shares
        starts = np.cumsum([0.0, *shares[:-1]])
        parts = [
            {
                "band": band,
                "share": share,
                "shade": shade,
                "x": round(100 * float(start), 2),
                "width": round(100 * share, 2),
            }
            for band, share, shade, start in zip(bands, shares, shades, starts, strict=True)
        ]
        rows.append({"modality": modality, "parts": parts})
    return {
        "kind": "wavelet",
        "title": "Wavelet energy",
        "explanation": "How much of the history's signal is steady (low band) and how much changes from item to item (high "
        "bands; high 1 is the quickest).",
        "finding": sentences.wavelet_energy(energy),
        "bands": list(zip(bands, shades, strict=True)),
        "rows": rows,
    }
