"""Many things done in groups, and one that fails leaves the others alone."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

LARGE_PX = 1 << 20
"""Pixels of an image that is large enough to keep a GPU busy alone; several would only take memory."""

Item = TypeVar("Item")
Begun = TypeVar("Begun")
Result = TypeVar("Result")


def in_groups(
    items: Iterable[Item],
    begin: Callable[[Item], tuple[Hashable, int, Begun]],
    finish: Callable[[list[Begun]], Sequence[Result]],
) -> list[Result | Exception]:
    """What ``finish`` makes of each of ``items``, in their order, or why nothing could be made of it.

    ``begin``: of one item, what it is equal in to those that ``finish`` may have beside it, how many it may have at
    most, and what it is given of it. A group is finished when it is full, so that no more is begun than has to be. One
    in which anything fails is finished one by one.
    """
    made: dict[int, Result | Exception] = {}
    groups: dict[Hashable, dict[int, Begun]] = {}

    def end(group: dict[int, Begun]) -> None:
        made.update(zip(group, _finished([*group.values()], finish), strict=True))

    for number, item in enumerate(items):
        try:
            key, most, begun = begin(item)
        except Exception as error:
            made[number] = error
            continue
        groups.setdefault(key, {})[number] = begun
        if len(groups[key]) >= most:
            end(groups.pop(key))
    for group in groups.values():
        end(group)
    return [made[number] for number in sorted(made)]


def one_by_one(items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result | Exception]:
    """What ``work`` makes of each of ``items``, in their order, or why nothing could be made of it."""
    return in_groups(items, lambda item: (None, 1, item), lambda group: [work(*group)])


def _finished(group: list[Begun], finish: Callable[[list[Begun]], Sequence[Result]]) -> list[Result | Exception]:
    try:
        return [*finish(group)]
    except Exception as error:
        if len(group) == 1:
            return [error]
    # outside of the except clause, which would keep what the group had in memory
    return [result for begun in group for result in _finished([begun], finish)]


def result_of(made: Sequence[Result | Exception]) -> Result:
    """The only one of ``made``. Raises it if it is an error."""
    (result,) = made
    if isinstance(result, Exception):
        raise result
    return result
