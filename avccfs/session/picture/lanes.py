"""Where boxes lie in their row, so that none covers another, whatever step is looked at.

A box has a lane for as long as it is there: stepping through the history moves nothing but what
the records move.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_LANES: Final = 64
"""A row is no higher than this. What finds no place shares the last lane."""


@dataclass(frozen=True, slots=True)
class Extent:
    """From where to where (both included) on the axis, and from which step to which."""

    low: int
    high: int
    since: int
    until: int | None


def assign(extents: Sequence[Extent]) -> tuple[list[int], int]:
    """The lane of each, from 0, and how many lanes there are; the lowest free one is taken."""
    lanes: list[list[tuple[int, int, int]]] = []
    ends: list[tuple[int, int]] = []
    chosen = [0] * len(extents)
    order = sorted(range(len(extents)), key=lambda i: (extents[i].since, extents[i].low, i))
    for i in order:
        extent = extents[i]
        while ends and ends[0][0] <= extent.since:
            _, gone = heapq.heappop(ends)
            lane = lanes[chosen[gone]]
            del lane[bisect.bisect_left(lane, _place(extents[gone], gone))]
        chosen[i] = _lowest_free(lanes, extent)
        if chosen[i] == len(lanes):
            lanes.append([])
        bisect.insort(lanes[chosen[i]], _place(extent, i))
        if extent.until is not None:
            heapq.heappush(ends, (extent.until, i))
    return chosen, len(lanes)


def _place(extent: Extent, index: int) -> tuple[int, int, int]:
    return extent.low, extent.high, index


def _lowest_free(lanes: list[list[tuple[int, int, int]]], extent: Extent) -> int:
    for number, lane in enumerate(lanes[: MAX_LANES - 1]):
        behind = bisect.bisect_left(lane, (extent.low,))
        free_after = behind == len(lane) or lane[behind][0] > extent.high
        if free_after and (behind == 0 or lane[behind - 1][1] < extent.low):
            return number
    return min(len(lanes), MAX_LANES - 1)
