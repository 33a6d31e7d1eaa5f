import math
from datetime import UTC, datetime, timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from athwe_core.nn.time_encoding import (
    SATURATING_BUCKETS,
    TimeEncoding,
    buckets_needed,
    day_of_year,
    interval_bucket,
    saturating_bucket,
)

D, DAY, START = 4, 86_400, 1_400_000_001


def encoding(kind: str, **changes: object) -> TimeEncoding:
    arguments: dict[str, object] = {
        "kind": kind,
        "hidden_size": D,
        "time_unit": "days",
        "buckets_per_log2": 2.0,
        "num_buckets": 30,
        "saturation_seconds": 1e5,
        "frequency": 10_000.0,
        "origin_seconds": START,
    }
    layer = TimeEncoding(**(arguments | changes))  # type: ignore[arg-type]
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


@pytest.mark.parametrize(("seconds", "bucket"), [(0, 0), (1, 100), (2, 158), (3, 200), (4, 232), (86_400, 1639)])
def test_interval_bucket_by_hand(seconds: int, bucket: int) -> None:
    assert interval_bucket(torch.tensor([seconds]), buckets_per_log2=100.0).item() == bucket


def test_interval_bucket_is_exact_where_dt_plus_1_is_a_power_of_2() -> None:
    powers = torch.arange(40)
    seconds = 2**powers - 1
    assert torch.equal(interval_bucket(seconds, buckets_per_log2=100.0), 100 * powers)
    below = interval_bucket(seconds[2:] - 1, buckets_per_log2=1.0)
    assert torch.equal(below, powers[2:] - 1)


def test_a_negative_interval_counts_as_0() -> None:
    assert interval_bucket(torch.tensor([-5]), buckets_per_log2=100.0).item() == 0


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(1, 0), (37_547, 1), (37_546, 0), (15_000_000, 126), (10**9, 200), (2**40, 200)]
)
def test_saturating_bucket_by_hand(seconds: int, bucket: int) -> None:
    # the border of bucket 1 is -k ln(1 - 1/(2 a)) = 37546.9 s
    found = saturating_bucket(torch.tensor([seconds]), num_buckets=200, saturation_seconds=1.5e7)
    assert found.item() == bucket


def test_saturating_bucket_counts_an_interval_of_0_as_1_second() -> None:
    found = saturating_bucket(torch.tensor([0, 1]), num_buckets=200, saturation_seconds=1.0)
    assert found.tolist() == [126, 126]


def test_a_rows_first_item_has_the_saturating_embedding_of_1_second() -> None:
    layer = encoding("saturating", saturation_seconds=1.0)
    found = layer(torch.tensor([START, START]), torch.tensor([0, 1]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], layer.table[round(30 * (1 - math.exp(-1)))])


@given(st.datetimes(datetime(1850, 1, 1), datetime(2399, 12, 31)))
def test_day_of_year_agrees_with_the_calendar(moment: datetime) -> None:
    utc = moment.replace(tzinfo=UTC, microsecond=0)
    seconds = (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert day_of_year(torch.tensor([seconds])).item() == utc.timetuple().tm_yday - 1


@pytest.mark.parametrize("year", [1900, 1999, 2000, 2023, 2024, 2100])
def test_day_of_year_counts_every_day_of_leap_and_common_years(year: int) -> None:
    first = datetime(year, 1, 1, tzinfo=UTC)
    length = (datetime(year + 1, 1, 1, tzinfo=UTC) - first).days
    seconds = int(first.timestamp()) + DAY * torch.arange(length)
    assert torch.equal(day_of_year(seconds), torch.arange(length))
    assert torch.equal(day_of_year(seconds + DAY - 1), torch.arange(length))


def test_absolute_time_is_the_cosine_of_days_since_the_origin() -> None:
    layer = encoding("absolute")
    days = torch.tensor([0.0, 1.5, 400.0])
    found = layer(START + (days.double() * DAY).long(), torch.zeros(3).long())
    for t, day in enumerate(days.tolist()):
        for i in range(D):
            phase = (layer.phase_weight[i].item() * day + layer.phase_bias[i].item()) / 10_000 ** (i / D)
            assert found[t, i].item() == pytest.approx(math.cos(phase), abs=1e-4)


def test_absolute_time_in_seconds_is_the_published_form() -> None:
    layer = encoding("absolute", time_unit="seconds")
    seconds = torch.tensor([START, START + DAY])
    phase = seconds.float()[:, None] * layer.phase_weight + layer.phase_bias
    expected = torch.cos(phase / 10_000 ** (torch.arange(D) / D))
    # phases of 1e9 rad in float32: only the first day's order of magnitude is comparable
    torch.testing.assert_close(layer(seconds, seconds * 0)[:, 0], expected[:, 0])


def test_one_second_is_visible_in_days() -> None:
    layer = encoding("absolute")
    with torch.no_grad():
        layer.phase_weight.fill_(1000.0)
    found = layer(torch.tensor([START + 10**6, START + 10**6 + 1]), torch.tensor([0, 1]))
    assert not torch.equal(found[0], found[1])


def test_cos_encodes_the_interval() -> None:
    layer = encoding("cos", time_unit="days")
    found = layer(torch.tensor([START]), torch.tensor([DAY // 2]))
    torch.testing.assert_close(found[0], torch.cos(0.5 * layer.phase_weight + layer.phase_bias))


def test_day_counts_from_the_first_training_interaction() -> None:
    layer = encoding("day")
    seconds = START + torch.tensor([0, DAY - 1, DAY, 29 * DAY, 500 * DAY, -DAY])
    assert torch.equal(layer(seconds, seconds * 0), layer.table[[0, 0, 1, 29, 29, 0]])


def test_day_of_year_has_a_row_for_each_day() -> None:
    layer = encoding("day_of_year")
    assert layer.table.shape == (366, D)
    new_years_eve = int(datetime(2024, 12, 31, tzinfo=UTC).timestamp())
    assert torch.equal(layer(torch.tensor([new_years_eve]), torch.tensor([0]))[0], layer.table[365])


def test_interval_and_absolute_are_concatenated_in_this_order() -> None:
    layer = encoding("interval+absolute")
    times, intervals = torch.tensor([START, START + 7]), torch.tensor([0, 7])
    found = layer(times, intervals)
    assert layer.width == found.shape[1] == 2 * D
    assert torch.equal(found[:, :D], layer.table[[0, 6]])
    phase = (times - START)[:, None] / DAY * layer.phase_weight + layer.phase_bias
    torch.testing.assert_close(found[:, D:], torch.cos(phase / 10_000 ** (torch.arange(D) / D)))


def test_an_interval_longer_than_any_in_training_takes_the_last_row() -> None:
    layer = encoding("interval")
    assert torch.equal(layer(torch.tensor([START]), torch.tensor([2**40]))[0], layer.table[-1])


@pytest.mark.parametrize("longest", [0, 1, 63, 64, 10**8])
def test_the_longest_training_interval_has_the_last_row(longest: int) -> None:
    rows = buckets_needed("interval", longest_interval=longest, span_seconds=0, buckets_per_log2=100.0)
    assert rows == interval_bucket(torch.tensor([longest]), buckets_per_log2=100.0).item() + 1


def test_the_day_table_spans_the_training_split() -> None:
    rows = buckets_needed("day", longest_interval=5, span_seconds=3 * DAY + 1, buckets_per_log2=100.0)
    assert rows == 4


def test_the_origin_is_saved_with_the_weights() -> None:
    assert encoding("absolute").state_dict()["origin"].item() == START


def test_saturating_intervals_have_the_published_number_of_buckets_whatever_the_data() -> None:
    rows = buckets_needed("saturating", longest_interval=5, span_seconds=9 * DAY, buckets_per_log2=100.0)
    assert rows == SATURATING_BUCKETS == 200
