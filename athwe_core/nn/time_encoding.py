"""Time embeddings of tokens: intervals, absolute times, and variants (HM4SR eq. 11-13 and figure 5, ATHWE)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

SATURATING_BUCKETS = 200
"""Upper end of the saturating interval in ATHWE as published."""
SECONDS_PER_DAY = 86_400
_DAYS_PER_YEAR = 366


def _real(seconds: Int64[Tensor, "*T"]) -> Float[Tensor, "*T"]:
    """Seconds as float64; as float32 on Apple's GPU, which has no float64, where a bucket may then be off by one."""
    return seconds.double() if seconds.device.type != "mps" else seconds.float()


def interval_bucket(seconds: Int64[Tensor, "*T"], *, buckets_per_log2: float) -> Int64[Tensor, "*T"]:
    """Bucket of a time interval on a logarithmic scale.

        bucket = floor(mu log2(dt + 1))

    The logarithm is taken in float64: in float32 an interval of 2^k - 1 seconds could fall into the bucket below its own.

    Args:
        seconds: intervals dt; negative ones count as 0.
        buckets_per_log2: mu > 0, buckets for each doubling of the interval.
    Returns: buckets, >= 0.
    Source: HM4SR eq. 12.   Differs: log2 as in the published code, where the paper prints log.
    """
    return (buckets_per_log2 * torch.log2(_real(seconds.clamp(min=0)) + 1)).floor().long()


def saturating_bucket(
    seconds: Int64[Tensor, "*T"], *, num_buckets: int, saturation_seconds: float
) -> Int64[Tensor, "*T"]:
    """Bucket of a time interval on a scale that saturates.

        bucket = round(a (1 - exp(-dt / k)))

    Args:
        seconds: intervals dt; less than 1 s counts as 1 s, which is what ATHWE gives the first item of a row.
        num_buckets: a >= 1, the largest bucket.
        saturation_seconds: k > 0.
    Returns: buckets in 0..a.
    Source: ATHWE.
    """
    share = -torch.expm1(-_real(seconds.clamp(min=1)) / saturation_seconds)
    return (num_buckets * share).round().long()


def day_of_year(seconds: Int64[Tensor, "*T"]) -> Int64[Tensor, "*T"]:
    """Day of the year of unix times, in UTC.

    Integer arithmetic on the device. Days are counted from 1 March in eras of 400 years, so that a leap day is the last day
    of its year, and then shifted to 1 January.

    Args:
        seconds: unix seconds, also negative.
    Returns: days in 0..365; 0 = 1 January.
    """
    day = torch.div(seconds, SECONDS_PER_DAY, rounding_mode="floor") + 719_468
    era_day = day - torch.div(day, 146_097, rounding_mode="floor") * 146_097
    year_of_era = (era_day - era_day // 1_460 + era_day // 36_524 - era_day // 146_096) // 365
    march_day = era_day - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)  # 0 = 1 March
    # From March to December the day counts from 1 January of the same calendar year, whose February may have 29 days.
    is_leap = ((year_of_era % 4 == 0) & (year_of_era % 100 != 0)) | (year_of_era % 400 == 0)
    return torch.where(march_day >= 306, march_day - 306, march_day + 59 + is_leap.long())


class TimeEncoding(nn.Module):
    """Time embedding of each token, from its timestamp and from the interval before it.

        interval      table[interval_bucket(dt)]              saturating    table[saturating_bucket(dt)]
        absolute      cos((l_i t + z_i) / freq^(i / D))       cos           cos(l_i dt + z_i)
        day           table[days since the origin]            day_of_year   table[day_of_year(t)]

    Args:
        kind: one of the names above, or `interval+absolute`, which concatenates the two.
        hidden_size: D >= 1.
        time_unit: `days` or `seconds`, the unit of t and dt in the two cosines. In `days`, t counts from `origin_seconds`.
        buckets_per_log2: mu of `interval_bucket`.
        num_buckets: size of the table for `interval` and `day`; for `saturating` its a, one less than the size. Larger
            buckets use the last entry.
        saturation_seconds: k of `saturating_bucket`.
        frequency: freq > 0.
        origin_seconds: first training interaction, unix seconds; saved with the weights.
    Source: HM4SR eq. 11-13 and figure 5; ATHWE for `saturating`.   Differs: the exponent i / D and the place of z_i follow
        the published code. That code has t in float32 seconds, a phase of about 1e7 rad without usable precision;
        `time_unit="seconds"` repeats it.
    """

    def __init__(
        self,
        *,
        kind: str,
        hidden_size: int,
        time_unit: str,
        buckets_per_log2: float,
        num_buckets: int,
        saturation_seconds: float,
        frequency: float,
        origin_seconds: int,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.time_unit = time_unit
        self.buckets_per_log2 = buckets_per_log2
        self.saturation_seconds = saturation_seconds
        self.num_buckets = num_buckets
        self.parts = tuple(kind.split("+"))
        self.width = hidden_size * len(self.parts)
        # Parameters.
        sizes = {
            "interval": num_buckets,
            "saturating": num_buckets + 1,
            "day": num_buckets,
            "day_of_year": _DAYS_PER_YEAR,
        }
        size = next((sizes[part] for part in self.parts if part in sizes), None)
        self.table = None if size is None else nn.Parameter(torch.empty(size, hidden_size))
        has_phase = "absolute" in self.parts or kind == "cos"
        self.phase_weight = nn.Parameter(torch.empty(hidden_size)) if has_phase else None
        self.phase_bias = nn.Parameter(torch.empty(hidden_size)) if has_phase else None
        self.origin: Tensor
        self.register_buffer("origin", torch.tensor(origin_seconds, dtype=torch.int64))
        scale = torch.tensor([frequency ** (place / hidden_size) for place in range(hidden_size)])
        self.frequency_scale: Tensor
        self.register_buffer("frequency_scale", scale, persistent=False)

    def forward(self, timestamps: Int64[Tensor, " T"], intervals: Int64[Tensor, " T"]) -> Float[Tensor, "T R"]:
        """Embed the time of each token.

        Args:
            timestamps: unix seconds.
            intervals: seconds since the previous token of the row, 0 for the first.
        Returns: embeddings of width R = D, or R = 2 D for `interval+absolute`.
        """
        return torch.cat([self._part(part, timestamps, intervals) for part in self.parts], dim=-1)

    def _part(self, part: str, timestamps: Tensor, intervals: Tensor) -> Tensor:
        if part == "absolute":
            return torch.cos(self._phase(self._in_unit(timestamps, origin=True)) / self.frequency_scale)
        if part == "cos":
            return torch.cos(self._phase(self._in_unit(intervals, origin=False)))
        assert self.table is not None
        if part == "interval":
            index = interval_bucket(intervals, buckets_per_log2=self.buckets_per_log2)
        elif part == "saturating":
            index = saturating_bucket(
                intervals, num_buckets=self.num_buckets, saturation_seconds=self.saturation_seconds
            )
        elif part == "day":
            index = torch.div(timestamps - self.origin, SECONDS_PER_DAY, rounding_mode="floor")
        else:
            index = day_of_year(timestamps)
        return F.embedding(index.clamp(0, self.table.shape[0] - 1), self.table)

    def _phase(self, time: Tensor) -> Tensor:
        assert self.phase_weight is not None
        assert self.phase_bias is not None
        return time[..., None] * self.phase_weight + self.phase_bias

    def _in_unit(self, seconds: Tensor, *, origin: bool) -> Tensor:
        if self.time_unit == "seconds":
            return seconds.float()
        shifted = seconds - self.origin if origin else seconds
        return (_real(shifted) / SECONDS_PER_DAY).float()


def buckets_needed(kind: str, *, longest_interval: int, span_seconds: int, buckets_per_log2: float) -> int:
    """Buckets that cover the times of the training split.

    Args:
        kind: as in `TimeEncoding`.
        longest_interval: longest interval of the training split, seconds, >= 0.
        span_seconds: from its first to its last interaction, >= 0.
        buckets_per_log2: mu of `interval_bucket`.
    Returns: value of `num_buckets` for `TimeEncoding`. `saturating` covers any interval and has the published number.
    """
    if kind == "saturating":
        return SATURATING_BUCKETS
    if "interval" in kind.split("+"):
        return math.floor(buckets_per_log2 * math.log2(longest_interval + 1)) + 1
    return span_seconds // SECONDS_PER_DAY + 1
