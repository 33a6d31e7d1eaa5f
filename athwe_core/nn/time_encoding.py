"""What the temporal router and the placeholder see of time (HM4SR eq. 11-13, figure 5; ATHWE's saturating interval)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

SATURATING_BUCKETS = 200
"""Of ATHWE as published."""
SECONDS_PER_DAY = 86_400
_DAYS_PER_YEAR = 366


def _real(seconds: Int64[Tensor, "*T"]) -> Float[Tensor, "*T"]:
    """float64 where the device has it; Apple's does not, and float32 may then miss a bucket border by one."""
    return seconds.double() if seconds.device.type != "mps" else seconds.float()


def interval_bucket(seconds: Int64[Tensor, "*T"], *, buckets_per_log2: float) -> Int64[Tensor, "*T"]:
    """floor(mu log2(dt + 1)) (eq. 12; the published code uses log2 where the paper prints log).

    The float64 logarithm sets 2^k seconds exactly where float32 could fall a bucket short.
    """
    return (buckets_per_log2 * torch.log2(_real(seconds.clamp(min=0)) + 1)).floor().long()


def saturating_bucket(
    seconds: Int64[Tensor, "*T"], *, num_buckets: int, saturation_seconds: float
) -> Int64[Tensor, "*T"]:
    """round(a (1 - exp(-dt / k))), where a dt of 0 counts as 1 s, as ATHWE does for a row's first item."""
    share = -torch.expm1(-_real(seconds.clamp(min=1)) / saturation_seconds)
    return (num_buckets * share).round().long()


def day_of_year(seconds: Int64[Tensor, "*T"]) -> Int64[Tensor, "*T"]:
    """Day within the year in 0..365 of unix seconds (UTC), in whole-number arithmetic.

    Days are counted from 1 March of year 0 in 400-year eras, where leap days fall at the end of a year, then shifted to
    1 January.
    """
    day = torch.div(seconds, SECONDS_PER_DAY, rounding_mode="floor") + 719_468
    era_day = day - torch.div(day, 146_097, rounding_mode="floor") * 146_097
    year_of_era = (era_day - era_day // 1_460 + era_day // 36_524 - era_day // 146_096) // 365
    march_day = era_day - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)  # 0 = 1 March
    # a March year's own leap day lies before it, in the calendar year that begins two months earlier
    is_leap = ((year_of_era % 4 == 0) & (year_of_era % 100 != 0)) | (year_of_era % 400 == 0)
    return torch.where(march_day >= 306, march_day - 306, march_day + 59 + is_leap.long())


class TimeEncoding(nn.Module):
    """Time embedding of each token.

    Args:
        kind: interval | absolute | interval+absolute | day | day_of_year | cos | saturating.
        hidden_size: D.
        time_unit: `days` since `origin_seconds` (default) or unix `seconds`, for absolute times and `cos` intervals.
        buckets_per_log2: mu of eq. 12.
        num_buckets: rows of the interval table, or of the day table, minus one for `saturating` (its a). Larger ids are
            clamped to the last row.
        saturation_seconds: k of the saturating interval.
        frequency: freq of eq. 13.
        origin_seconds: first training interaction, unix seconds; saved with the weights.
    Differs: the published absolute time is in float32 seconds, whose phase of about 1e7 rad is noise; `seconds` repeats it.
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
        rows = {
            "interval": num_buckets,
            "saturating": num_buckets + 1,
            "day": num_buckets,
            "day_of_year": _DAYS_PER_YEAR,
        }
        table = next((rows[part] for part in self.parts if part in rows), None)
        self.table = None if table is None else nn.Parameter(torch.empty(table, hidden_size))
        has_phase = "absolute" in self.parts or kind == "cos"
        self.phase_weight = nn.Parameter(torch.empty(hidden_size)) if has_phase else None
        self.phase_bias = nn.Parameter(torch.empty(hidden_size)) if has_phase else None
        self.origin: Tensor
        self.register_buffer("origin", torch.tensor(origin_seconds, dtype=torch.int64))
        scale = frequency ** (torch.arange(hidden_size, dtype=torch.float64) / hidden_size)
        self.frequency_scale: Tensor
        self.register_buffer("frequency_scale", scale.float(), persistent=False)

    def forward(self, timestamps: Int64[Tensor, " T"], intervals: Int64[Tensor, " T"]) -> Float[Tensor, "T R"]:
        """Embeddings of unix seconds and of the seconds since the token before; R = D, or 2 D for interval+absolute."""
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
    """Buckets of `kind` for a training split with this longest interval and this span from first to last time.

    `saturating` fits any span: it has the published number.
    """
    if kind == "saturating":
        return SATURATING_BUCKETS
    if "interval" in kind.split("+"):
        return math.floor(buckets_per_log2 * math.log2(longest_interval + 1)) + 1
    return span_seconds // SECONDS_PER_DAY + 1
