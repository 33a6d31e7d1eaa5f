"""Title and category of items, from whichever columns a data set has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from athwe_core.analysis.case_study.result import ItemText
from athwe_core.data.features.categories import DEFAULT_COLUMNS
from athwe_core.data.store.dataset import PreparedDataset

TITLE_COLUMNS = ("title", "name")
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[*({_QUOTED}(?:[,\s]+{_QUOTED})*)(?:\].*)?", re.DOTALL)


@dataclass(frozen=True)
class ItemFacts:
    """Texts by internal item id, row 0 the padding. They are as the source has them, so escape them where they are shown."""

    item_ids: list[str]
    titles: list[str]
    categories: list[str]

    def of(self, item: int) -> ItemText:
        """An item by its internal id."""
        return {"item_id": self.item_ids[item], "title": self.titles[item], "category": self.categories[item]}


def item_facts(prepared: PreparedDataset) -> ItemFacts:
    """Texts of all items: titles from the column `title` or `name`, categories from the column chosen in `prepare`."""
    table = prepared.item_table()
    chosen = prepared.manifest["options"].get("category_column")

    def column(*names: str | None) -> list[str]:
        name = next((name for name in names if name in table.columns), None)
        return [""] * len(table) if name is None else [" ".join(text.split()) for text in table[name].to_list()]

    categories = [readable_category(text) for text in column(chosen, *DEFAULT_COLUMNS)]
    return ItemFacts(table["item_id"].to_list(), column(*TITLE_COLUMNS), categories)


def readable_category(text: str) -> str:
    """A list of quoted names, `['Toys', 'Puzzles']`, as `Toys > Puzzles` (of nested lists the first); else the text."""
    names = _LIST.fullmatch(text)
    if names is None:
        return text
    return " > ".join(name[1:-1] for name in re.findall(_QUOTED, names[1]))
