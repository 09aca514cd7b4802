import asyncio

import pytest
from tests.unit.clock import Clock

from utilityvm.kit.aio import Deadlines, Scope, finish


async def forever() -> None:
    await asyncio.Event().wait()


def unexpected(error: Exception) -> None:
    pytest.fail(f"{error!r} was told")


async def fail(error: Exception) -> None:
    raise error


# -- Scope --------------------------------------------------------------------------------------------------------------


async def test_work_runs_until_it_ends() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    scope = Scope("s", unexpected)
    await scope.start("work", work())
    await scope.aclose()
    assert done == [1]
    assert scope.failure is None


async def test_the_first_failure_ends_the_others_and_is_told_once() -> None:
    told: list[Exception] = []
    scope = Scope("s", told.append)
    others = [scope.start(f"other-{number}", forever()) for number in range(3)]
    first, second = ValueError("first"), ValueError("second")
    scope.start("first", fail(first))
    scope.start("second", fail(second))
    await asyncio.wait(others)
    assert all(task.cancelled() for task in others)
    assert (scope.failure, told) == (first, [first])
    await scope.aclose()


async def test_a_task_that_a_stranger_cancels_has_failed_its_owner() -> None:
    told: list[Exception] = []
    scope = Scope("s", told.append)
    one, other = scope.start("one", forever()), scope.start("other", forever())
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait([one, other])
    assert [str(error) for error in told] == ["s:one: cancelled, as by the end of the event loop"]
    await scope.aclose()


async def test_an_owner_that_hears_of_nothing_may_have_its_tasks_cancelled() -> None:
    scope = Scope("s")
    one, other = scope.start("one", forever()), scope.start("other", forever())
    one.cancel()
    await asyncio.wait([one])
    assert (scope.failure, other.done()) == (None, False)
    await scope.aclose()


async def test_a_closed_scope_begins_nothing() -> None:
    begun: list[bool] = []

    async def work() -> None:
        begun.append(True)

    scope = Scope("s", unexpected)
    await scope.aclose()
    late = scope.start("late", work())
    await asyncio.wait([late])
    assert late.cancelled()
    assert begun == []


async def test_closing_cancels_what_runs_and_waits_for_its_cleanup() -> None:
    cleaned: list[str] = []

    async def work(name: str) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    told: list[Exception] = []
    scope = Scope("s", told.append)
    for name in "ab":
        scope.start(name, work(name))
    await asyncio.sleep(0)
    await scope.aclose()
    assert sorted(cleaned) == ["a", "b"]
    assert (scope.failure, told) == (None, []), "being cancelled is no failure"
    await scope.aclose()


async def test_one_of_its_own_tasks_may_close_it() -> None:
    scope = Scope("s", unexpected)
    other = scope.start("other", forever())
    ended: list[bool] = []

    async def close() -> None:
        await scope.aclose()
        ended.append(True)

    await scope.start("closer", close())
    assert other.cancelled()
    assert ended == [True]


async def test_tasks_are_named_after_their_owner() -> None:
    scope = Scope("vm:x", unexpected)
    assert scope.start("exit", forever()).get_name() == "vm:x:exit"
    await scope.aclose()


# -- finish -------------------------------------------------------------------------------------------------------------


async def test_the_result_and_the_error_come_through() -> None:
    async def seven() -> int:
        return 7

    assert await finish(seven(), within=5) == 7
    with pytest.raises(ValueError, match="as it was"):
        await finish(fail(ValueError("as it was")), within=5)


async def test_cancelling_again_and_again_waits_for_the_work_and_then_goes_on() -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()

    caller = asyncio.create_task(finish(work(), within=60))  # noqa: TID251 (awaited below)
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_a_callers_cancellation_outranks_the_works_failure() -> None:
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        raise ValueError

    caller = asyncio.create_task(finish(work(), within=60))  # noqa: TID251 (awaited below)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_work_that_does_not_end_is_given_up() -> None:
    work = asyncio.Event()
    ended: list[bool] = []

    async def stuck() -> None:
        try:
            await work.wait()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError, match=r"cleanup did not end within 0\.01 s"):
        await finish(stuck(), within=0.01)
    assert ended == [True]


# -- Deadlines ----------------------------------------------------------------------------------------------------------


class Passed:
    """Notes that a deadline has passed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_a_deadline_passes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, deadlines, passed = Clock(monkeypatch), Deadlines(), Passed()
    deadlines.start(10, passed)
    await clock.forward(9)
    assert passed.times == 0
    await clock.forward(2)
    assert passed.times == 1
    deadlines.hold()
    deadlines.release()
    await clock.forward(100)
    assert passed.times == 1


async def test_a_held_deadline_does_not_pass_and_has_what_it_had_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, deadlines, before, meanwhile = Clock(monkeypatch), Deadlines(), Passed(), Passed()
    deadlines.start(10, before)
    await clock.forward(7)
    deadlines.hold()
    deadlines.hold()
    deadlines.start(5, meanwhile)
    await clock.forward(1000)
    assert (before.times, meanwhile.times) == (0, 0)
    deadlines.release()
    deadlines.release()
    await clock.forward(2)
    assert before.times == 0
    await clock.forward(2)
    assert (before.times, meanwhile.times) == (1, 0)
    await clock.forward(2)
    assert meanwhile.times == 1


@pytest.mark.parametrize("held", [False, True])
async def test_a_stopped_deadline_never_passes(monkeypatch: pytest.MonkeyPatch, *, held: bool) -> None:
    clock, deadlines, passed = Clock(monkeypatch), Deadlines(), Passed()
    deadline = deadlines.start(10, passed)
    if held:
        deadlines.hold()
    deadline.stop()
    deadline.stop()
    deadlines.release()
    await clock.forward(100)
    assert passed.times == 0
