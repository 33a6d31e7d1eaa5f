"""Which column of a table is what: by the names that people give them, and, for times, by what their values would mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from athwe_core.data.readers.times import TimeGuess

ITEM_NAMES = (
    *("itemid", "item", "iid", "productid", "product", "parentasin", "asin", "movieid", "sku", "skuid", "articleid"),
    *("trackid", "songid", "bookid", "isbn", "gameid", "appid", "businessid", "newsid", "videoid", "goodsid", "goods"),
    *("stockcode", "contentid", "offerid", "listingid", "hotelid", "recipeid", "beerid", "animeid", "artistid"),
    *("courseid", "restaurantid", "venueid", "poiid", "placeid", "locationid", "jobid", "variantid", "upc", "ean"),
    *("productcode", "itemcode", "article", "movie", "book", "track", "song", "game", "video", "aid", "itemsku"),
)
NAMES = {
    "user": (
        *("userid", "user", "uid", "customerid", "customer", "visitorid", "visitor", "fullvisitorid", "reviewerid"),
        *(
            "reviewer",
            "accountid",
            "account",
            "memberid",
            "member",
            "buyerid",
            "buyer",
            "clientid",
            "client",
            "profileid",
        ),
        *(
            "personid",
            "person",
            "playerid",
            "player",
            "readerid",
            "listenerid",
            "subscriberid",
            "shopperid",
            "username",
        ),
        *("steamid", "msno", "cookieid", "deviceid", "sessionid", "session", "visitid"),
    ),
    "item": ITEM_NAMES,
    "item id": (*ITEM_NAMES, "id"),  # of a table of items; elsewhere `id` is the row's
    "time": (
        *(
            "timestamp",
            "time",
            "ts",
            "timestampms",
            "timems",
            "unixtime",
            "unixreviewtime",
            "unixtimestamp",
            "datetime",
        ),
        *(
            "date",
            "eventtime",
            "eventtimestamp",
            "eventdate",
            "createdat",
            "createdtime",
            "created",
            "tdat",
            "reviewtime",
        ),
        *("reviewdate", "visitdate", "orderdate", "invoicedate", "purchasedate", "transactiondate", "ratedat", "day"),
    ),
    "title": ("title", "name", "productname", "producttitle", "itemname", "itemtitle", "movietitle", "booktitle"),
    "categories": (
        *("categories", "category", "genres", "genre", "tags", "categoryname", "categorynames", "productcategory"),
        *("productcategories", "productcategorytree", "maincategory", "producttypename", "topics"),
    ),
    "brand": (
        "brand",
        "brandname",
        "manufacturer",
        "author",
        "authors",
        "artist",
        "artistname",
        "publisher",
        "developer",
    ),
    "description": ("description", "productdescription", "desc", "detaildesc", "summary", "overview", "abstract"),
    "image_url": ("imageurl", "imurl", "imgurl", "image", "imagelink", "picture", "pictureurl", "thumbnail", "poster"),
}
"""Role -> column names in small letters and digits only, the likeliest first."""
ITEM_ROLES = ("title", "categories", "brand", "description", "image_url")
"""Roles in a table of items; a column that has one is called after it in the prepared data."""
_LIKE_TIMES = re.compile(
    r"(?:^|[_\s-])(?i:time|date|timestamp|at|ts)(?i:ms)?$|(?<=[a-z])(?:Time|Date|Timestamp|At|Ts)(?:Ms|MS)?$"
)


_ALL_NAMES = {name for names in NAMES.values() for name in names}


@dataclass(frozen=True)
class Columns:
    """The columns of an interaction table; `unit` is that of `whole_seconds`."""

    user: str
    item: str
    time: str
    unit: str


def plain(name: str) -> str:
    """A column name in small letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_columns(columns: Sequence[str], role: str) -> list[str]:
    """The columns whose names have a role, the likeliest first."""
    by_name = {plain(name): name for name in reversed(columns)}
    return [by_name[name] for name in NAMES[role] if name in by_name]


def like_times(columns: Sequence[str]) -> list[str]:
    """Other columns that may hold times, by the end of their names: `visit_time`, `orderDate`, `seen_at`."""
    return [name for name in columns if _LIKE_TIMES.search(name) and plain(name) not in NAMES["time"]]


def best_time(guesses: dict[str, TimeGuess]) -> str | None:
    """The column whose values are the best times: plausible ones, then more distinct ones, then the likelier name."""
    possible = [name for name, guess in guesses.items() if guess.unit is not None]
    plausible = [name for name in possible if guesses[name].is_plausible]
    if not plausible:
        return next(iter(possible), None)
    most = max(guesses[name].num_distinct for name in plausible)
    return next(name for name in plausible if guesses[name].num_distinct >= 0.99 * most)


def looks_like_data(names: Sequence[str]) -> bool:
    """Whether a first line holds values in place of column names: a number or date, no known name, and more than a count."""
    found = [name.strip() for name in names if name.strip()]
    if found == [str(number) for number in range(len(found))] or any(plain(name) in _ALL_NAMES for name in found):
        return False
    return any(re.fullmatch(r"[-+]?[0-9]+([.,:/T -][0-9]+)*Z?([eE][0-9]+)?", name) for name in found)


def example_names(fields: Sequence[str]) -> str:
    """Names to type after `--columns` for a line of values, in the order that is likeliest."""
    most = ("user", "item", "time") if len(fields) <= 3 else ("user", "item", "rating", "time")
    return ",".join([*most, *(f"column{number}" for number in range(5, len(fields) + 1))][: max(len(fields), 1)])
