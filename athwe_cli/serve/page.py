"""The page at `/` to try runs by hand, and what it asks for while it is used."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from athwe_cli.serve.answers import FieldError, Json, refusal
from athwe_cli.serve.arrivals import Arrivals
from athwe_cli.serve.schemas import Id, Seconds
from athwe_core.analysis.case_study.select_user import Case
from athwe_core.analysis.pages.serve import explore_page, explore_results, page_item
from athwe_core.errors import AthweError
from athwe_core.serving.explorer import Explorer
from athwe_core.serving.service import Service

MOST_K = 50
MOST_ITEMS = 200
"""Of a history on the page: each item is left out once to measure its influence."""
A_DAY = 86_400
Text = Annotated[str, Query(max_length=200)]


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    item_id: Id
    timestamp: Seconds


class _Wish(BaseModel):
    """What the page shows: a history, and how."""

    model_config = ConfigDict(strict=True, extra="forbid")
    history: list[_Event] = Field(min_length=1, max_length=MOST_ITEMS)
    k: int = Field(10, ge=1, le=MOST_K)
    exclude_seen: bool = True
    user: Id | None = None
    target: _Event | None = None
    explained: Id | None = None


def page_routes(service: Service, arrivals: Arrivals) -> APIRouter:
    """The routes of the page, which is there where the service has an explorer."""
    routes = APIRouter(include_in_schema=False)

    def explorer() -> Explorer:
        found = service.served.explorer
        assert found is not None, "there is no page without an explorer, and a reload keeps it"
        return found

    @routes.get("/")
    async def page() -> Response:
        return HTMLResponse(explore_page(explorer(), most_items=MOST_ITEMS))

    @routes.get("/try/items")
    async def items(q: Text = "") -> Response:
        found = explorer()
        items = await run_in_threadpool(found.search, q)
        return Json({"items": [page_item(item, found) for item in items]})

    @routes.get("/try/users")
    async def users(q: Text = "") -> Response:
        return Json({"users": await run_in_threadpool(explorer().users, q)})

    @routes.get("/try/user")
    async def user(id: Annotated[str | None, Query(max_length=200)] = None) -> Response:
        found = explorer()
        try:
            case = await run_in_threadpool(found.user, id)
        except AthweError as error:
            raise FieldError("id", str(error)) from None
        return Json(_case(found, case))

    @routes.get("/try/item")
    async def item(id: Annotated[str, Query(max_length=200)]) -> Response:
        found = explorer()
        try:
            return Json(page_item(found.opened.items.of(found.item(id, "id")), found))
        except AthweError as error:
            raise FieldError("id", str(error)) from None

    @routes.get("/try/picture")
    async def picture(item: Annotated[str, Query(max_length=200)]) -> Response:
        content = await run_in_threadpool(explorer().picture, item)
        if content is None:
            return refusal(404, "no picture", "item")
        headers = {"Cache-Control": f"private, max-age={A_DAY}", "X-Content-Type-Options": "nosniff"}
        return Response(content, headers=headers, media_type="image/jpeg")

    @routes.post("/try/recommendations")
    async def recommendations(wish: _Wish) -> Response:
        found = explorer()
        try:
            request = found.request(
                [event.item_id for event in wish.history],
                [event.timestamp for event in wish.history],
                k=wish.k,
                exclude_seen=wish.exclude_seen,
                user=wish.user,
                target=None if wish.target is None else (wish.target.item_id, wish.target.timestamp),
                explained=wish.explained,
            )
        except AthweError as error:
            raise FieldError(error.name, str(error)) from None
        (study,) = await arrivals.of(service.submit(found, [request]))
        return HTMLResponse(await run_in_threadpool(explore_results, study, found))

    return routes


def _case(explorer: Explorer, case: Case) -> dict[str, Any]:
    """A user's history, and what came next."""
    items = explorer.opened.items

    def event(number: int, seconds: int) -> dict[str, Any]:
        return {**page_item(items.of(number), explorer), "timestamp": seconds}

    latest = list(zip(case.item_ids, case.timestamps, strict=True))[-MOST_ITEMS:]
    return {
        "user": case.user,
        "history": [event(*each) for each in latest],
        "target": None if case.target is None else event(*case.target),
    }
