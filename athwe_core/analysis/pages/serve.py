"""The pages of `athwe serve`: runs to try by hand, what they recommend, and the description of the HTTP interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from jinja2.utils import url_quote

from athwe_core.analysis.case_study.item_view import ItemView
from athwe_core.analysis.case_study.result import CaseStudy, ItemText
from athwe_core.analysis.case_study.view_model import case_view, page_colours, short_names
from athwe_core.analysis.pages.html import fragment, render, script_json


class Explored(Protocol):
    """What the page tells of runs; an `Explorer` is one."""

    dataset: str

    @property
    def runs(self) -> Sequence[str]:
        """Names."""
        ...

    @property
    def latest(self) -> int:
        """Unix seconds of the last interaction."""
        ...

    def has_picture(self, item_id: str) -> bool:
        """Whether the item has a picture."""
        ...


class _LinkedItems(ItemView):
    """Items whose pictures the page loads."""

    def __init__(self, has_picture: Callable[[str], bool]) -> None:
        super().__init__(None)
        self._has_picture = has_picture

    def picture(self, item_id: str) -> str | None:
        """Where the service has the picture."""
        return f"try/picture?item={url_quote(item_id, for_qs=True)}" if self._has_picture(item_id) else None


def explore_page(explored: Explored, *, most_items: int) -> str:
    """The page to try runs; it gets everything else from the service.

    Args:
        explored: the runs and their data set.
        most_items: of a history.
    """
    names = short_names(explored.runs)
    return render(
        "explore.html.j2",
        title=f"Try {explored.dataset}",
        own="explore",
        sources="img-src 'self'; connect-src 'self'",
        dataset=explored.dataset,
        runs=list(names.values()),
        data=script_json({"latest": explored.latest, "mostItems": most_items}),
    )


def explore_results(study: CaseStudy, explored: Explored) -> str:
    """What the page shows for a history: recommendations and reasons, as a part of it.

    Args:
        study: of the history.
        explored: knows which items have pictures.
    """
    colours = page_colours([study])
    view = case_view(study, _LinkedItems(explored.has_picture), number=0, colours=colours)
    explained = next(iter(study["why"].values()))["subject"]["item_id"]
    return fragment("explore_results.html.j2", case=view, explained=explained)


def page_item(item: ItemText, explored: Explored) -> dict[str, Any]:
    """An item as the page's script reads it."""
    shown = _LinkedItems(explored.has_picture).shown(item["item_id"], item["title"], item["category"])
    return {
        "item_id": shown.item_id,
        "title": shown.title,
        "category": shown.category,
        "picture": shown.picture,
        "initials": shown.initials,
    }


def api_page(description: Mapping[str, Any]) -> str:
    """A description of an HTTP interface for people, without scripts from elsewhere.

    Args:
        description: in the form of OpenAPI 3.1.
    """
    schemas = description.get("components", {}).get("schemas", {})
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "text": operation.get("description", ""),
            "fields": list(_fields(_content(operation.get("requestBody", {})), schemas)),
            "answer": list(_fields(_content(operation["responses"].get("200", {})), schemas)),
            "refusals": [
                (status, response["description"])
                for status, response in operation["responses"].items()
                if status != "200"
            ],
            "example": _example(operation),
        }
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return render("api.html.j2", title="HTTP interface", info=description["info"], operations=operations)


def _content(part: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = part.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _example(operation: Mapping[str, Any]) -> str | None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return json.dumps(content["example"]) if "example" in content else None


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, str]]:
    """Every field of a schema with its type, default and description; those of lists as `histories[].item_ids`."""
    schema = _resolved(schema, schemas)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = field.get("default")
        shown = "required" if name in required else json.dumps(default)
        yield {
            "name": prefix + name,
            "type": _type(field, schemas),
            "default": shown,
            "text": field.get("description", ""),
        }
        inner = _resolved(field.get("items", {}), schemas)
        if "properties" in inner:
            yield from _fields(inner, schemas, f"{prefix}{name}[].")


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schemas[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema
    return found


def _type(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """A type in words, with its bounds: `list of text or whole number`, `whole number >= 1`."""
    if "anyOf" in field:
        return " or ".join(_type(each, schemas) for each in field["anyOf"])
    kind = _resolved(field, schemas).get("type", "any")
    if kind == "array":
        return f"list of {_type(field.get('items', {}), schemas)}"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "object": "entries",
    }
    bounds = [f"{sign} {field[bound]:.15g}" for bound, sign in (("minimum", ">="), ("maximum", "<=")) if bound in field]
    return " ".join([words.get(kind, kind), *bounds])
