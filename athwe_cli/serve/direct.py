"""The requests that come by the hundred: answered by the function of their route, without the framework's way to it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from athwe_cli.serve.answers import FieldError, of_error
from athwe_core.errors import AthweError


class Direct:
    """Answers bodies of one route.

    Routing, dependencies and their contexts take the framework as long as all the rest of a request. The route stays: it
    describes itself, and a body that is no valid one goes to it for its error.

    Args:
        body: what the route takes.
        endpoint: the function of the route.
    """

    def __init__(self, body: type[BaseModel], endpoint: Callable[[Any], Awaitable[Response]]) -> None:
        self._body, self._endpoint = body, endpoint

    async def answer(self, content: bytes) -> Response | None:
        """The answer to a body of JSON; None where it is malformed, for the framework to refuse."""
        try:
            body = self._body.model_validate(json.loads(content))
        except (ValueError, RecursionError):  # of the JSON or of its fields
            return None
        try:
            return await self._endpoint(body)
        except (FieldError, AthweError) as error:
            return of_error(error)
