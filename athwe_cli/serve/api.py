"""The HTTP interface: recommendations, similar items, health, numbers, and its own description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response
from starlette.responses import HTMLResponse

import athwe_core
from athwe_cli.serve.answers import FieldError, Json, install
from athwe_cli.serve.arrivals import Arrivals
from athwe_cli.serve.direct import Direct
from athwe_cli.serve.guard import LOOPBACK, Guard
from athwe_cli.serve.limits import Limits
from athwe_cli.serve.metrics import CONTENT_TYPE, Metrics
from athwe_cli.serve.page import page_routes
from athwe_cli.serve.schemas import Health, Problems, RecommendAnswer, RecommendBody, SimilarAnswer, SimilarBody
from athwe_core.analysis.pages.serve import api_page
from athwe_core.errors import AthweError
from athwe_core.serving.engine import Engine
from athwe_core.serving.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    422: {"model": Problems, "description": "The body is malformed; the field is named."},
    429: {"model": Problems, "description": "The queue is full: try again after Retry-After seconds."},
    503: {"model": Problems, "description": "Waited too long, or the service stops."},
}


RECOMMEND_EXAMPLE = {
    "histories": [{"item_ids": ["item-0001", "item-0002"], "timestamps": [1400000000, 1400086400]}],
    "k": 5,
}
SIMILAR_EXAMPLE = {"item_ids": ["item-0001"], "k": 5}


def create_app(
    service: Service,
    *,
    limits: Limits | None = None,
    keys: tuple[str, ...] = (),
    report: Callable[[Exception], None],
) -> Guard:
    """The service as an ASGI application.

    Args:
        service: answers.
        limits: of requests; None = the defaults.
        keys: one of them is needed; empty = none, and then the service has to be called by a name of this machine.
        report: called with each unexpected error.
    """
    limits = Limits() if limits is None else limits
    app = FastAPI(
        title="athwe serve",
        version=athwe_core.__version__,
        description="Recommendations by a trained run.",
        docs_url=None,
        redoc_url=None,
    )
    install(app)
    arrivals = Arrivals()
    if service.served.explorer is not None:
        app.include_router(page_routes(service, arrivals))
    direct = _routes(app, service, limits, arrivals)
    metrics = Metrics(service)

    @app.get("/metrics", response_class=Response, summary="Numbers in Prometheus' text format")
    async def numbers() -> Response:
        """Requests by path and status, times, batches, the queue, the runs."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    hosts = None if keys else LOOPBACK
    return Guard(app, direct, limits=limits, keys=keys, hosts=hosts, metrics=metrics, report=report)


def _routes(app: FastAPI, service: Service, limits: Limits, arrivals: Arrivals) -> dict[str, Direct]:
    """Add the routes. Returns those that the guard may answer at once, by path."""

    @app.post(
        "/recommend",
        response_model=RecommendAnswer,
        responses=REFUSALS,
        summary="The best items for histories",
        openapi_extra=_example(RECOMMEND_EXAMPLE),
    )
    async def recommend(body: RecommendBody) -> Response:
        """Items of equal score are in the order of their first appearance in the data."""
        served = service.served
        _require_within(limits, k=body.k, entries=len(body.histories), name="histories")
        allowed = _allowed(served.engine, body.allowed)
        requests = []
        for at, history in enumerate(body.histories):
            if len(history.item_ids) > limits.history:
                raise FieldError(f"histories.{at}.item_ids", f"must have at most {limits.history} items")
            try:
                requests.append(
                    served.engine.recommend_request(
                        history.item_ids, history.timestamps, k=body.k, exclude_seen=body.exclude_seen, allowed=allowed
                    )
                )
            except AthweError as error:
                raise FieldError(f"histories.{at}.{error.name}", str(error)) from None
        answers = await arrivals.of(service.submit(served.engine, requests))
        found = [
            {
                "user_id": history.user_id,
                "item_ids": answer.item_ids,
                "scores": answer.scores,
                "unknown_item_ids": request.unknown,
            }
            for history, request, answer in zip(body.histories, requests, answers, strict=True)
        ]
        return Json({"run": served.names[0], "recommendations": found})

    @app.post(
        "/similar",
        response_model=SimilarAnswer,
        responses=REFUSALS,
        summary="The nearest items of items",
        openapi_extra=_example(SIMILAR_EXAMPLE),
    )
    async def similar(body: SimilarBody) -> Response:
        """By the cosine of the vectors in the model."""
        served = service.served
        _require_within(limits, k=body.k, entries=len(body.item_ids), name="item_ids")
        allowed = _allowed(served.engine, body.allowed)
        requests = []
        for at, item in enumerate(body.item_ids):
            try:
                requests.append(served.engine.similar_request(item, k=body.k, allowed=allowed))
            except AthweError as error:
                raise FieldError(f"item_ids.{at}", str(error)) from None
        answers = await arrivals.of(service.submit(served.engine, requests))
        found = [
            {"like": item, "item_ids": answer.item_ids, "scores": answer.scores}
            for item, answer in zip(body.item_ids, answers, strict=True)
        ]
        return Json({"run": served.names[0], "similar": found})

    @app.get("/health", response_model=Health, summary="Whether requests are answered")
    async def health() -> Response:
        """200, or 503 while the service stops."""
        is_open = service.batcher.is_open
        state = {"status": "ok" if is_open else "stopping", "runs": list(service.served.names)}
        return Json({**state, "waiting": service.batcher.num_waiting}, 200 if is_open else 503)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(api_page(app.openapi()))

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)  # browsers ask for one

    if service.served.explorer is None:

        @app.get("/", include_in_schema=False)
        async def home() -> Response:
            return Response(status_code=307, headers={"Location": "/docs"})

    return {"/recommend": Direct(RecommendBody, recommend), "/similar": Direct(SimilarBody, similar)}


def _require_within(limits: Limits, *, k: int, entries: int, name: str) -> None:
    if k > limits.k:
        raise FieldError("k", f"must be at most {limits.k}, got {k}")
    if entries > limits.histories:
        raise FieldError(name, f"must have at most {limits.histories} entries, got {entries}")


def _allowed(engine: Engine, ids: list[str] | None) -> tuple[int, ...] | None:
    try:
        return None if ids is None else engine.allowed(ids)
    except AthweError as error:
        raise FieldError("allowed", str(error)) from None


def _example(body: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"example": body}}}}
