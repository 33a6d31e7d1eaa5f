"""Bodies of requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from athwe_core.data.histories import LATEST


def _as_text(value: Any) -> Any:
    """Whole numbers as text: raw ids are text."""
    return str(value) if type(value) is int else value


Id = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int)]
Seconds = Annotated[int, Field(ge=0, le=LATEST)]
K = Annotated[int, Field(ge=1, description="How many items are wanted.")]
Allowed = Annotated[
    list[Id] | None,
    Field(
        min_length=1, description="Ids of the only items that may be recommended, such as those in stock; null = all."
    ),
]
ITEM_IDS = "The items, by the ids of the data set."


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class History(_Body):
    """What a user did."""

    item_ids: list[Id] = Field(
        min_length=1, description=ITEM_IDS + " Unknown ones are left out and named in the answer."
    )
    timestamps: list[Seconds] = Field(description="Unix seconds, one for each item; any order.")
    user_id: Id | None = Field(None, description="Comes back with the answer.")


class RecommendBody(_Body):
    """Histories to recommend for."""

    histories: list[History] = Field(min_length=1)
    k: K = 10
    exclude_seen: bool = Field(True, description="Leave out the items of the history.")
    allowed: Allowed = None


class SimilarBody(_Body):
    """Items whose nearest items are wanted."""

    item_ids: list[Id] = Field(min_length=1, description=ITEM_IDS)
    k: K = 10
    allowed: Allowed = None


class Recommendation(BaseModel):
    """The best items after one history, best first; fewer than k where fewer are left."""

    user_id: str | None
    item_ids: list[str]
    scores: list[float]
    unknown_item_ids: list[str] = Field(description="Items of the history that the model does not know.")


class RecommendAnswer(BaseModel):
    """One entry for each history, in their order."""

    run: str
    recommendations: list[Recommendation]


class Similar(BaseModel):
    """The nearest items of one item, nearest first; the score is the cosine of the vectors."""

    like: str
    item_ids: list[str]
    scores: list[float]


class SimilarAnswer(BaseModel):
    """One entry for each item, in their order."""

    run: str
    similar: list[Similar]


class Health(BaseModel):
    """Whether requests are answered."""

    status: str = Field(description="ok, or stopping.")
    runs: list[str] = Field(description="The first one answers; the page shows all.")
    waiting: int = Field(description="Histories and items in the queue.")


class Problem(BaseModel):
    """One thing that is wrong."""

    field: str = Field(description="Where in the body, such as histories.0.timestamps; empty for the whole request.")
    message: str


class Problems(BaseModel):
    """Why a request was refused."""

    detail: list[Problem]
