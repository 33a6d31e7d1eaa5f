"""Answers without the framework: the same as with it."""

import asyncio
import json

import pytest
from pydantic import BaseModel
from starlette.responses import Response

from athwe_cli.serve.answers import FieldError, Json
from athwe_cli.serve.direct import Direct
from athwe_core.errors import AthweError
from athwe_core.serving.batching import QueueFullError


class Body(BaseModel):
    number: int


async def doubled(body: Body) -> Response:
    if body.number == 1:
        raise FieldError("number", "must not be 1")
    if body.number == 2:
        raise QueueFullError("requests", "must fit into the queue")
    if body.number == 3:
        raise AthweError("scores", "must not be NaN")
    return Json({"number": 2 * body.number})


def answer(content: bytes) -> Response | None:
    return asyncio.run(Direct(Body, doubled).answer(content))


def test_a_valid_body_is_answered_and_errors_have_their_status() -> None:
    found = [answer(b'{"number": %d}' % number) for number in (21, 1, 2, 3)]
    assert [response and (response.status_code, json.loads(response.body)) for response in found] == [
        (200, {"number": 42}),
        (422, {"detail": [{"field": "number", "message": "must not be 1"}]}),
        (429, {"detail": [{"field": "", "message": "requests must fit into the queue"}]}),
        (500, {"detail": [{"field": "", "message": "scores must not be NaN"}]}),
    ]
    assert found[2] is not None
    assert found[2].headers["Retry-After"] == "1"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"number": "x"}', b"[1]", b"1"])
def test_a_malformed_body_is_left_to_the_framework(content: bytes) -> None:
    assert answer(content) is None
