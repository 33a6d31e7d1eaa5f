"""JSON answers, and errors in one form: `{"detail": [{"field": ..., "message": ...}]}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from athwe_core.errors import AthweError
from athwe_core.serving.batching import ClosedError, QueueFullError, WaitedTooLongError

MOST_PROBLEMS = 20
MOST_CHARACTERS = 500
"""Of a field and of a message in an answer; a body may hold names of any length."""
UNEXPECTED = "an unexpected error happened; the log of the server has it"
RETRY = {"Retry-After": "1"}


class Json(JSONResponse):
    """JSON of ASCII characters: ids may hold what UTF-8 cannot write."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


class FieldError(Exception):
    """A field of the body is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def refusal(status: int, message: str, field: str = "", headers: Mapping[str, str] | None = None) -> Json:
    """An answer with one problem."""
    return _refusal(status, [(field, message)], headers)


def _refusal(status: int, problems: Sequence[tuple[str, str]], headers: Mapping[str, str] | None = None) -> Json:
    detail = [
        {"field": field[:MOST_CHARACTERS], "message": message[:MOST_CHARACTERS]}
        for field, message in problems[:MOST_PROBLEMS]
    ]
    return Json({"detail": detail}, status, headers)


def status_of(error: AthweError) -> int:
    """The status of an answer to a request whose computation failed."""
    if isinstance(error, QueueFullError):
        return 429
    return 503 if isinstance(error, WaitedTooLongError | ClosedError) else 500


def of_error(error: FieldError | AthweError) -> Json:
    """The answer to a request that was valid JSON and could not be answered."""
    if isinstance(error, FieldError):
        return refusal(422, error.message, error.field)
    status = status_of(error)
    return refusal(status, str(error), headers=RETRY if status in (429, 503) else None)


def install(app: FastAPI) -> None:
    """Answer errors of requests in one form."""

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Json:
        found = [(".".join(map(str, each["loc"][1:])), str(each["msg"])) for each in error.errors()]
        return _refusal(422, found)

    @app.exception_handler(FieldError)
    @app.exception_handler(AthweError)
    async def failed(_: Request, error: FieldError | AthweError) -> Json:
        return of_error(error)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Json:
        return refusal(500, UNEXPECTED)  # the framework raises the error again, and the guard reports it

    @app.exception_handler(HTTPException)
    async def no_such(_: Request, error: HTTPException) -> Json:
        if error.status_code == 400:  # of the framework, for a body that it cannot decode
            return refusal(422, "the body must be JSON in UTF-8")
        return refusal(error.status_code, str(error.detail), headers=error.headers)
