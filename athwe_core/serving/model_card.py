"""The model card of an exported model: data, rules of evaluation, metrics and use, as Markdown."""

from __future__ import annotations

from typing import Any

from athwe_core.messages import brief

SHOWN = ("ndcg@10", "mrr@10", "hit@10", "ndcg@20")


def model_card(facts: dict[str, Any]) -> str:
    """The README.md of a model.

    Args:
        facts: what `config.json` holds, see `hub`.
    """
    data, results = facts["data"], facts.get("results") or {}
    seen = "left out of" if facts["exclude_seen"] else "left in"
    rows = [
        f"| {split} | "
        + " | ".join(f"{results[split][name]:.4f}" if name in results[split] else "" for name in SHOWN)
        + " |"
        for split in ("validation", "test")
        if split in results
    ]
    table = [f"| split | {' | '.join(SHOWN)} |", f"|---|{'---|' * len(SHOWN)}", *rows] if rows else ["No results yet."]
    licence = data["licence"] or "not stated. State it before you publish this model."
    return "\n".join(
        [
            "---",
            "library_name: athwe",
            "tags: [sequential-recommendation, athwe]",
            "---",
            "",
            f"# {brief(facts['run'])}",
            "",
            f"A sequential recommender: model `{facts['configuration']['model']['name']}`, preset "
            f"`{brief(facts['preset'])}`, trained with athwe {facts['athwe_version']}.",
            "",
            "## Use",
            "",
            "    athwe recommend --run hf:OWNER/NAME --histories visits.csv --k 10",
            "",
            "`visits.csv` has a user, an item and a time in each row. Items are those of `items.json`.",
            "",
            "## Data",
            "",
            f"{brief(data['name'])}, prepared version {data['version']} (content {data['content_hash'][:12]}): "
            f"{data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions. "
            f"Split: {data.get('split_rule', 'leave-one-out')}. Order of interactions at equal times: {data['tie_order']}.",
            "",
            f"Licence of the data: {brief(licence, most=200)}",
            "",
            "## Results",
            "",
            f"Full ranking over all items; seen items are {seen} the ranking; items of equal score share their rank.",
            "",
            *table,
            "",
        ]
    )
