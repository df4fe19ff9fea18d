"""One query for each joint at the least total cost, all problems of a batch side by side."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MOST_COST = 1e100


def assign_joints(cost: Tensor) -> Tensor:
    """The queries that the joints of every problem get, no query twice, at the least sum of costs.

    Args:
        cost: (N, Q, J), floating point; summed in float64.

    Returns:
        (N, J) int64 query of each joint. With fewer queries than joints every query is used, and -1 marks the
        joints left without one. A cost that is NaN, infinite or beyond 1e100 either way is avoided: as few of
        them are taken as can be, and the rest is as cheap as it can be. Among equal path lengths a free
        column wins, then the lowest, so that the same costs always give the same assignment.

    Raises:
        ValueError: `cost` is not (N, Q, J).

    Source: shortest augmenting paths, Crouse 2016, "On implementing 2D rectangular assignment algorithms",
    which scipy.optimize.linear_sum_assignment implements; prtr lib/models/matcher.py calls that.
    """
    if cost.ndim != 3:
        raise ValueError(f"cost: expected (N, Q, J), got shape {tuple(cost.shape)}")
    problems, queries, joints = cost.shape
    if problems == 0 or queries == 0 or joints == 0:
        return torch.full((problems, joints), -1, dtype=torch.int64, device=cost.device)
    if joints <= queries:
        return _solve(usable_costs(cost.transpose(1, 2)))[0]
    return _solve(usable_costs(cost))[1]


def usable_costs(cost: Tensor) -> Tensor:
    """(N, rows, columns) -> the same in float64, with what is to be avoided at a price that does it."""
    cost = cost.double()
    usable = cost.abs() <= MOST_COST
    least = cost.masked_fill(~usable, math.inf).amin((1, 2))
    most = cost.masked_fill(~usable, -math.inf).amax((1, 2))
    spread = most - least
    margin = torch.maximum(spread, most.abs()).clamp(min=1.0)
    bad = torch.where(least <= most, most + min(cost.shape[1:]) * spread + margin, 0.0)
    return torch.where(usable, cost, bad[:, None, None])


class _Search(NamedTuple):
    """Of every problem: dual prices (N, rows + 1) and (N, columns), and the row of each column, -1 for none.

    The last row is a place for what is not to be written.
    """

    row_price: Tensor
    price: Tensor
    row_of: Tensor


def _solve(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Costs (N, rows, columns), rows <= columns -> column of each row (N, rows), row of each column or -1."""
    problems, rows, columns = cost.shape
    search = _Search(
        cost.new_zeros(problems, rows + 1),
        cost.new_zeros(problems, columns),
        torch.full((problems, columns), -1, dtype=torch.int64, device=cost.device),
    )
    for row in range(rows):
        search = _place_row(cost, search, row)
    numbers = torch.arange(columns, device=cost.device).expand(problems, columns)
    column_of = numbers.new_zeros(problems, rows + 1)
    column_of.scatter_(1, search.row_of.remainder(rows + 1), numbers)  # -1 goes to the last place
    return column_of[:, :rows], search.row_of


def _place_row(cost: Tensor, search: _Search, start: int) -> _Search:
    """From row `start` along the shortest path to a free column; every row on it moves one column on."""
    problems, rows = cost.shape[:2]
    each = torch.arange(problems, device=cost.device)
    distance = torch.full_like(search.price, math.inf)
    previous = torch.zeros_like(search.row_of)
    scanned = torch.zeros_like(search.row_of, dtype=torch.bool)
    row, low = torch.full_like(each, start), cost.new_zeros(problems)
    column, done = torch.zeros_like(each), torch.zeros_like(each, dtype=torch.bool)
    while not done.all():
        reach = low[:, None] + cost[each, row] - search.row_price[each, row, None] - search.price
        shorter = (reach < distance) & ~scanned & ~done[:, None]
        distance = torch.where(shorter, reach, distance)
        previous = torch.where(shorter, row[:, None], previous)
        found = _nearest(distance.masked_fill(scanned, math.inf), search.row_of)
        column = torch.where(done, column, found)
        low = torch.where(done, low, distance[each, column])
        next_row = search.row_of[each, column]
        done = done | (next_row < 0)
        scanned[each, column] |= ~done
        row = torch.where(done, row, next_row)
    gap = torch.where(scanned, low[:, None] - distance, 0.0)
    row_price = search.row_price.scatter_add(1, search.row_of.remainder(rows + 1), gap)
    row_price[:, start] += low
    return _Search(row_price, search.price - gap, _shift(search.row_of, previous, column, start))


def _nearest(distance: Tensor, row_of: Tensor) -> Tensor:
    """(N,) the column of least distance, a free one if there is one, then the lowest."""
    columns = distance.shape[1]
    numbers = torch.arange(columns, device=distance.device)
    order = torch.where(row_of < 0, numbers, numbers + columns)
    nearest = distance == distance.amin(1, keepdim=True)
    return torch.where(nearest, order, 2 * columns).amin(1).remainder(columns)


def _shift(row_of: Tensor, previous: Tensor, column: Tensor, start: int) -> Tensor:
    """Gives every row on the path that ends at `column` the column after its own."""
    each = torch.arange(len(row_of), device=row_of.device)
    before, row_of = row_of, row_of.clone()
    going = torch.ones_like(column, dtype=torch.bool)
    while going.any():
        row = previous[each, column]
        row_of[each, column] = torch.where(going, row, row_of[each, column])
        going = going & (row != start)
        column = torch.where(going, (before == row[:, None]).int().argmax(1), column)
    return row_of
