"""How many VMs a pool begins to make, and how many idle ones it gives up; pure."""

import msgspec

from utilityvm.kit.memory import total_and_available


class Wish(msgspec.Struct, frozen=True):
    """What is wanted of a pool: `ready` VMs idle, `most` at all, `at_once` being made at one time."""

    ready: int
    most: int
    at_once: int


class Counts(msgspec.Struct, frozen=True):
    """What there is of a pool: VMs that are idle or being made, all that take a place, and callers that wait for one."""

    idle: int
    making: int
    places: int
    waiting: int


def to_make(wish: Wish, counts: Counts, *, thrifty: bool) -> int:
    """Return how many VMs to begin now. `thrifty`: only those that somebody waits for, none to be ready."""
    wanted = counts.waiting + (0 if thrifty else wish.ready) - counts.idle - counts.making
    return max(0, min(wanted, wish.most - counts.places, wish.at_once - counts.making))


def to_give_up(counts: Counts) -> int:
    """Return how many idle VMs to end while memory is short: half of them at each look, for the others may be enough."""
    return (counts.idle + 1) // 2


def is_short(meminfo: str, *, was_short: bool) -> bool:
    """Whether memory is short, by the text of ``/proc/meminfo``: less than a tenth of it is available, and until it is 15 % again."""
    total, available = total_and_available(meminfo)
    return available * 100 < total * (15 if was_short else 10)
