"""All pairs of state and event of a pool, and of a VM of it; and how many VMs it makes and gives up."""

import pytest

from tests.unit.lives import moves_or_is_refused
from utilityvm.templates import member_life, pool_life
from utilityvm.templates.member_life import MemberState
from utilityvm.templates.pool_life import PoolState
from utilityvm.templates.refill import Counts, Wish, is_short, to_give_up, to_make

WISH = Wish(ready=3, most=6, at_once=2)


@pytest.mark.parametrize("state", PoolState)
@pytest.mark.parametrize("event", pool_life.Do)
def test_each_pair_of_a_pool_moves_or_is_refused(state: PoolState, event: pool_life.Do) -> None:
    moves_or_is_refused(pool_life.LIFE, state, event, "pool of x")


@pytest.mark.parametrize("state", MemberState)
@pytest.mark.parametrize("event", member_life.Do)
def test_each_pair_of_a_vm_of_it_moves_or_is_refused(state: MemberState, event: member_life.Do) -> None:
    moves_or_is_refused(member_life.LIFE, state, event, "a VM")


def test_nothing_leads_from_a_lent_vm_back_to_an_idle_one() -> None:
    reached, last = {MemberState.LENT}, set[MemberState]()
    while reached != last:
        last = set(reached)
        reached |= {there for (here, _), there in member_life.LIFE.items() if here in last}
    assert reached == {MemberState.LENT, MemberState.ENDING, MemberState.ENDED}


@pytest.mark.parametrize(
    ("counts", "made", "thriftily"),
    [
        (Counts(idle=0, making=0, places=0, waiting=0), 2, 0),
        (Counts(idle=0, making=1, places=1, waiting=0), 1, 0),
        (Counts(idle=0, making=2, places=2, waiting=9), 0, 0),
        (Counts(idle=2, making=0, places=2, waiting=0), 1, 0),
        (Counts(idle=3, making=0, places=3, waiting=0), 0, 0),
        (Counts(idle=4, making=0, places=4, waiting=0), 0, 0),
        (Counts(idle=0, making=0, places=6, waiting=5), 0, 0),
        (Counts(idle=0, making=0, places=5, waiting=5), 1, 1),
        (Counts(idle=0, making=0, places=0, waiting=1), 2, 1),
    ],
)
def test_as_many_are_made_as_are_lacking_and_have_a_place(counts: Counts, made: int, thriftily: int) -> None:
    assert (to_make(WISH, counts, thrifty=False), to_make(WISH, counts, thrifty=True)) == (made, thriftily)


@pytest.mark.parametrize(("idle", "given_up"), [(0, 0), (1, 1), (2, 1), (5, 3)])
def test_half_of_the_idle_ones_are_given_up_at_a_time(idle: int, given_up: int) -> None:
    assert to_give_up(Counts(idle=idle, making=0, places=idle, waiting=0)) == given_up


@pytest.mark.parametrize(
    ("available", "was_short", "short"),
    [(99, False, True), (100, False, False), (149, True, True), (150, True, False), (1000, True, False)],
)
def test_memory_is_short_below_a_tenth_until_there_is_more_again(available: int, was_short: bool, short: bool) -> None:
    text = f"MemTotal:        1000 kB\nMemFree:          10 kB\nMemAvailable:    {available} kB\nHugePages_Total:       0\n"
    assert is_short(text, was_short=was_short) is short
