"""The table of what a VM holds: every event in every state, who waits for whom, what is left of a failure."""

import asyncio
from collections.abc import Callable

import pytest

from utilityvm.devices.holdings import LIFE, Do, Held, Holding, Holdings
from utilityvm.kit.errors import HostError, NotFound, StateError, UtilityVMError
from utilityvm.kit.ids import VmId

VM = VmId("x")


def half(error: UtilityVMError) -> UtilityVMError:
    error.half_done = True
    return error


class Outside:
    """The outside world: what it was asked, what it has, with what it fails, and a gate that it waits at."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def attach(self, thing: str) -> None:
        await self._do(f"attach {thing}")

    async def detach(self, thing: str, *, from_guest: bool) -> None:
        await self._do(f"detach {thing}" + ("" if from_guest else " from the host"))

    async def _do(self, what: str) -> None:
        self.asked.append(what)
        await asyncio.sleep(0)
        await self.gate.wait()
        if (failure := self.fails.get(what)) is not None:
            raise failure


def table() -> tuple[Holdings[str], Outside]:
    outside = Outside()
    return Holdings[str](VM, "thing", outside), outside


def made(name: str) -> Callable[[], str]:
    return lambda: name


async def some_turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


# -- the table of states ------------------------------------------------------------------------------------------------

WAYS: dict[Held, tuple[Do, ...]] = {
    Held.ATTACHING: (),
    Held.ATTACHED: (Do.DONE,),
    Held.CHANGING: (Do.DONE, Do.CHANGE),
    Held.DETACHING: (Do.DONE, Do.DETACH),
    Held.HALF: (Do.FAIL_HALF,),
    Held.DETACHED: (Do.FAIL,),
}


@pytest.mark.parametrize("do", Do)
@pytest.mark.parametrize("state", Held)
async def test_each_event_in_each_state_moves_as_listed_or_is_refused(state: Held, do: Do) -> None:
    holding = Holding("vm x: thing a", "a")
    for step in WAYS[state]:
        holding.step(step)
    assert holding.state is state
    target = LIFE.get((state, do))
    if target is None:
        with pytest.raises(StateError, match=f"^vm x: thing a: cannot {do.value} while {state.value}$"):
            holding.step(do)
        assert holding.state is state
    else:
        holding.step(do)
        assert holding.state is target


def test_from_every_state_but_the_last_something_leads_out_of_the_vm() -> None:
    out, grown = {Held.DETACHED}, True
    while grown:
        more = {state for (state, _), target in LIFE.items() if target in out} - out
        out, grown = out | more, bool(more)
    assert out == set(Held)


# -- references ---------------------------------------------------------------------------------------------------------


async def test_what_is_taken_twice_is_attached_once_and_detached_with_the_last_reference() -> None:
    held, outside = table()
    first = await held.take("a", made("A"))
    second = await held.take("a", made("other"))
    assert (first, second.thing, second.references) == (second, "A", 2)
    await held.drop("a")
    assert (outside.asked, second.references) == (["attach A"], 1)
    await held.drop("a")
    assert outside.asked == ["attach A", "detach A"]
    assert list(held) == []
    with pytest.raises(NotFound, match="^not attached$") as caught:
        await held.drop("a")
    assert caught.value.hint == "vm x: thing a is not known"


async def test_ten_things_are_attached_side_by_side() -> None:
    held, outside = table()
    outside.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(held.take(str(number), made(str(number))))
        await some_turns()
        assert len(outside.asked) == 10, "one waits for another"
        outside.gate.set()
    assert {one.state for one in held} == {Held.ATTACHED}


async def test_who_asks_meanwhile_waits_and_shares_the_success() -> None:
    held, outside = table()
    outside.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asking = [group.create_task(held.take("a", made("A"))) for _ in range(3)]
        await some_turns()
        assert not any(task.done() for task in asking)
        outside.gate.set()
    assert {task.result().references for task in asking} == {3}
    assert outside.asked == ["attach A"]


async def test_who_asks_meanwhile_shares_the_failure_and_nothing_is_left() -> None:
    held, outside = table()
    outside.gate.clear()
    outside.fails["attach A"] = HostError("full")
    asking = [asyncio.ensure_future(held.take("a", made("A"))) for _ in range(3)]  # noqa: TID251 (awaited below)
    await some_turns()
    outside.gate.set()
    for task in asking:
        with pytest.raises(HostError, match="full"):
            await task
    assert list(held) == []
    outside.fails.clear()
    assert (await held.take("a", made("A"))).references == 1


async def test_who_asks_while_it_is_detached_gets_it_anew() -> None:
    held, outside = table()
    await held.take("a", made("A"))
    outside.gate.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(held.drop("a"))
        await some_turns()
        asking = group.create_task(held.take("a", made("B")))
        await some_turns()
        outside.gate.set()
    assert outside.asked == ["attach A", "detach A", "attach B"]
    assert asking.result().thing == "B"


async def test_what_is_not_admitted_is_not_counted() -> None:
    held, outside = table()

    def refuse(_: str) -> None:
        raise HostError("another way")

    first = await held.take("a", made("A"))
    with pytest.raises(HostError, match="another way"):
        await held.take("a", made("A"), refuse)
    assert (first.references, outside.asked) == (1, ["attach A"])


async def test_without_a_place_nothing_is_held() -> None:
    held, outside = table()

    def full() -> str:
        raise HostError("no place")

    with pytest.raises(HostError, match="no place"):
        await held.take("a", full)
    assert (list(held), outside.asked) == ([], [])


# -- failures -----------------------------------------------------------------------------------------------------------


async def test_a_detach_that_fails_leaves_it_attached_and_may_be_repeated() -> None:
    held, outside = table()
    await held.take("a", made("A"))
    outside.fails["detach A"] = HostError("busy")
    for _ in range(3):
        with pytest.raises(HostError, match="busy"):
            await held.drop("a")
        assert (held.the("a").state, held.the("a").references) == (Held.ATTACHED, 1)
    outside.fails.clear()
    await held.drop("a")
    assert list(held) == []


async def test_a_detach_that_fails_half_way_is_finished_by_the_host_alone() -> None:
    held, outside = table()
    await held.take("a", made("A"))
    outside.fails["detach A"] = half(HostError("busy"))
    outside.fails["detach A from the host"] = HostError("still busy")
    with pytest.raises(HostError, match="busy"):
        await held.drop("a")
    with pytest.raises(HostError, match="still busy"):
        await held.drop("a")
    assert held.the("a").state is Held.HALF
    with pytest.raises(StateError, match="cannot attach once more while half detached"):
        await held.take("a", made("A"))
    outside.fails.clear()
    await held.drop("a")
    assert outside.asked == ["attach A", "detach A", "detach A from the host", "detach A from the host"]
    assert list(held) == []


async def test_a_thing_leaves_the_guest_with_its_last_reference_and_then_the_host_alone() -> None:
    held, outside = table()
    left: list[str] = []

    async def leave(thing: str) -> None:
        if outside.fails:
            raise outside.fails["leave"]
        left.append(thing)

    for _ in range(2):
        await held.take("a", made("A"))
    assert not await held.halve("a", leave)
    assert (left, held.the("a").references) == ([], 1)
    outside.fails["leave"] = HostError("in use")
    with pytest.raises(HostError, match="in use"):
        await held.halve("a", leave)
    assert held.the("a").state is Held.ATTACHED
    outside.fails.clear()
    for _ in range(2):  # who asks again is told the same
        assert await held.halve("a", leave)
    assert (left, held.the("a").state) == (["A"], Held.HALF)
    await held.drop("a")
    assert (outside.asked, list(held)) == (["attach A", "detach A from the host"], [])


async def test_what_the_host_does_not_know_any_more_is_detached() -> None:
    held, outside = table()
    await held.take("a", made("A"))
    outside.fails |= {"detach A": half(HostError("busy")), "detach A from the host": NotFound("no such thing")}
    with pytest.raises(HostError):
        await held.drop("a")
    await held.drop("a")
    assert list(held) == []


@pytest.mark.parametrize("again", ["take", "drop"])
async def test_an_attach_that_is_left_on_the_host_is_cleared_by_the_next_call(again: str) -> None:
    held, outside = table()
    outside.fails["attach A"] = half(HostError("the guest refused"))
    with pytest.raises(HostError, match="the guest refused"):
        await held.take("a", made("A"))
    assert (held.the("a").state, held.the("a").references) == (Held.HALF, 0)
    outside.fails.clear()
    if again == "take":
        assert (await held.take("a", made("B"))).state is Held.ATTACHED
        assert outside.asked == ["attach A", "detach A from the host", "attach B"]
    else:
        await held.drop("a")
        assert list(held) == []


async def test_a_stranger_of_a_failure_is_taken_for_half_done() -> None:
    held, outside = table()
    outside.fails["attach A"] = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await held.take("a", made("A"))
    assert held.the("a").state is Held.HALF


# -- callers who give up ------------------------------------------------------------------------------------------------


async def given_up(outside: Outside, work: "asyncio.Task[object]") -> None:
    """Cancel a call whose effect has begun, and let the effect end."""
    await some_turns()
    work.cancel()
    await some_turns()
    assert not work.done(), "the caller went on before the effect had ended"
    outside.gate.set()
    await asyncio.wait([work])
    assert work.cancelled()


async def test_a_cancelled_attach_is_carried_out_and_taken_back() -> None:
    held, outside = table()
    outside.gate.clear()
    await given_up(outside, asyncio.ensure_future(held.take("a", made("A"))))  # noqa: TID251
    assert outside.asked == ["attach A", "detach A"]
    assert list(held) == []


async def test_a_cancelled_attach_stays_for_those_who_waited() -> None:
    held, outside = table()
    outside.gate.clear()
    first = asyncio.ensure_future(held.take("a", made("A")))  # noqa: TID251 (awaited below)
    await some_turns()
    second = asyncio.ensure_future(held.take("a", made("A")))  # noqa: TID251 (awaited below)
    await given_up(outside, first)
    assert (await second).state is Held.ATTACHED
    assert held.the("a").references == 1


async def test_a_waiter_that_gives_up_keeps_no_reference() -> None:
    held, outside = table()
    outside.gate.clear()
    first = asyncio.ensure_future(held.take("a", made("A")))  # noqa: TID251 (awaited below)
    await some_turns()
    second = asyncio.ensure_future(held.take("a", made("A")))  # noqa: TID251 (awaited below)
    await some_turns()
    second.cancel()
    await asyncio.wait([second])
    outside.gate.set()
    assert (await first).references == 1


async def test_a_cancelled_attach_that_cannot_be_taken_back_is_held_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    held, outside = table()
    outside.gate.clear()
    outside.fails["detach A"] = HostError("busy")
    await given_up(outside, asyncio.ensure_future(held.take("a", made("A"))))  # noqa: TID251
    assert (held.the("a").state, held.the("a").references) == (Held.ATTACHED, 0)
    assert "busy" in caplog.text
    assert (await held.take("a", made("A"))).references == 1
    outside.fails.clear()
    await held.drop("a")
    assert list(held) == []


async def test_a_cancelled_detach_is_carried_out() -> None:
    held, outside = table()
    await held.take("a", made("A"))
    outside.gate.clear()
    await given_up(outside, asyncio.ensure_future(held.drop("a")))  # noqa: TID251
    assert list(held) == []


# -- changes ------------------------------------------------------------------------------------------------------------


async def test_changes_of_one_thing_follow_each_other() -> None:
    held, _ = table()
    await held.take("a", made(""))

    async def append(letter: str) -> None:
        async def effect(thing: str) -> str:
            await some_turns()
            return thing + letter

        await held.change("a", effect, references=1)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for letter in "bcd":
            group.create_task(append(letter))
    assert (sorted(held.the("a").thing), held.the("a").references) == (["b", "c", "d"], 4)


async def test_a_change_that_fails_changes_nothing() -> None:
    held, _ = table()
    await held.take("a", made("A"))

    async def effect(_: str) -> str:
        raise HostError("no")

    with pytest.raises(HostError, match="no"):
        await held.change("a", effect, references=1)
    assert (held.the("a").thing, held.the("a").references, held.the("a").state) == ("A", 1, Held.ATTACHED)
