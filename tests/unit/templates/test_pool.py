"""A pool over fake machines: what it has ready, what it hands out, and what it does when that fails."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest

from tests.unit.clock import Clock, turns
from utilityvm.compute.life import State as MachineState
from utilityvm.kit.errors import DeadlineExceeded, Exhausted, GuestError, HostError, InvalidOptions, NotFound, StateError
from utilityvm.options.network import UserNetwork
from utilityvm.templates import pool as pool_module
from utilityvm.templates.member import REHEARSALS
from utilityvm.templates.pool import FIRST_DELAY, HEALTH_TIMEOUT, LAST_DELAY, LOOK_EVERY, TRIES, WAITERS, Pool
from utilityvm.templates.pool_life import PoolState
from utilityvm.vm import end, uvm
from utilityvm.vm.life import State

from .pools import PLENTY, SHORT, Clones, die, refusing, until


class Host:
    """What the host says of its memory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def says(self, text: str | None) -> None:
        if text is None:
            self._path.unlink()
        else:
            self._path.write_text(text)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """There is plenty of memory."""
    monkeypatch.setattr(end, "EXIT_TIMEOUT", 0.05)
    monkeypatch.setattr(uvm, "DRAIN_TIMEOUT", 0.05)
    monkeypatch.setattr(pool_module, "REST", 0)
    monkeypatch.setattr(pool_module, "MEMINFO", tmp_path / "meminfo")
    host = Host(tmp_path / "meminfo")
    host.says(PLENTY)
    return host


@pytest.fixture
async def clones() -> AsyncIterator[Clones]:
    """A source of VMs, of which nothing is left in the end."""
    source = Clones()
    yield source
    assert source.left == 0


def ready(pool: Pool, number: int) -> bool:
    """Whether so many VMs are idle, and nothing else is going on."""
    told = pool.stats()
    return (told.idle, told.making, told.ending) == (number, 0, 0)


# -- a good life --------------------------------------------------------------------------------------------------------


async def test_an_open_pool_has_its_vms_ready_and_they_stand_still(clones: Clones) -> None:
    network = UserNetwork()
    async with Pool(clones, ready=3, max=5, network=network, require_jail=True) as pool:
        assert pool.state is PoolState.OPEN
        assert ready(pool, 3)
        assert [machine.state for machine in clones.machines] == [MachineState.PAUSED] * 3
    assert pool.stats().idle == 0
    assert clones.wishes == [{"vm_id": "", "require_kvm": False, "require_jail": True, "network": network}] * 3


async def test_a_vm_has_answered_a_few_times_before_it_is_wanted(clones: Clones) -> None:
    async with Pool(clones, ready=1) as pool:
        assert len(clones.guests[0].modified) == REHEARSALS
        await pool.acquire()
        assert len(clones.guests[0].modified) == REHEARSALS + 1


async def test_a_vm_that_is_handed_out_runs_and_has_been_told_the_time(clones: Clones) -> None:
    async with Pool(clones) as pool:
        vm = await pool.acquire()
        assert vm.state is State.RUNNING
        assert (await vm.run(["echo", "a"])).stdout == b"a"
        (_, request) = clones.guest(vm).modified[-1]
        assert isinstance(request, dict)
        assert request["ResourceType"] == "VirtualMachineIdentity"
        assert request["Settings"]["Seconds"] > 1_700_000_000


async def test_what_was_handed_out_is_made_anew_in_the_background(clones: Clones) -> None:
    async with Pool(clones, ready=2, max=3) as pool:
        await pool.acquire()
        assert pool.stats().idle == 1
        await until(lambda: ready(pool, 2))
        assert (pool.stats().lent, pool.stats().made, pool.stats().acquired) == (1, 3, 1)


async def test_nothing_is_made_to_be_ready_while_one_after_another_is_handed_out(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "REST", 1.0)
    clock = Clock(monkeypatch)
    async with Pool(clones, ready=2, max=4) as pool:
        for left in (1, 0):
            await clock.forward(0.5)  # the rest of it is for what a busy machine takes
            await pool.acquire()
            assert (pool.stats().idle, pool.stats().making) == (left, 0)
        await pool.acquire()
        assert (pool.stats().idle, pool.stats().making) == (0, 0)
        await clock.forward(1.0)
        await until(lambda: ready(pool, 1))


async def test_nothing_is_made_to_be_ready_while_one_is_being_woken(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "REST", 1.0)
    clock, answers = Clock(monkeypatch), asyncio.Event()

    async def slow(_request: object) -> str | None:
        await answers.wait()
        return None

    async with Pool(clones, ready=2, max=4) as pool, asyncio.TaskGroup() as group:
        clones.guests[0].modifying = slow
        asked = group.create_task(pool.acquire())
        await until(lambda: len(clones.guests[0].modified) > REHEARSALS)
        die(clones.machines[1])
        await until(lambda: pool.stats().lost == 1 and pool.stats().ending == 0)
        assert (pool.stats().idle, pool.stats().making) == (0, 0)
        answers.set()
        assert clones.machine(await asked) is clones.machines[0]
        await clock.forward(1.0)
        await until(lambda: ready(pool, 2))


async def test_a_vm_that_was_used_is_never_handed_out_again(clones: Clones) -> None:
    seen = list[object]()
    async with Pool(clones, ready=2, max=2) as pool:
        for _ in range(6):
            vm = await pool.acquire()
            assert not any(vm is other for other in seen)
            seen.append(vm)
            await pool.release(vm)
            assert vm.state is State.CLOSED


async def test_there_are_never_more_than_max_and_who_asks_for_more_waits_for_a_place(clones: Clones) -> None:
    async with Pool(clones, ready=1, max=2) as pool, asyncio.TaskGroup() as group:
        lent = [await pool.acquire(), await pool.acquire()]
        waits = group.create_task(pool.acquire())
        await turns()
        assert (clones.left, pool.stats().waiting, waits.done()) == (2, 1, False)
        await pool.release(lent.pop())
        assert (await waits).state is State.RUNNING
        assert clones.left == 2


async def test_a_vm_that_its_user_closes_has_given_back_its_place(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool:
        for _ in range(3):
            async with await pool.acquire() as vm:
                assert pool.stats().lent == 1
            await until(lambda: pool.stats().lent == 0)
            await pool.release(vm)
        assert pool._members == set()


async def test_who_waits_longest_is_served_first(clones: Clones) -> None:
    served = []

    async def asks(name: int, pool: Pool) -> None:
        async with await pool.acquire():
            served.append(name)

    async with Pool(clones, ready=0, max=1) as pool, asyncio.TaskGroup() as group:
        for name in range(5):
            group.create_task(asks(name, pool))
    assert served == [0, 1, 2, 3, 4]


async def test_a_pool_that_is_closed_ends_the_vms_that_are_lent(clones: Clones) -> None:
    async with Pool(clones) as pool:
        vm = await pool.acquire()
    assert vm.state is State.CLOSED
    await pool.release(vm)


# -- bounds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "most"), [(-1, 2), (3, 2), (0, 0), (-1, -1)])
def test_a_pool_that_cannot_be_is_refused(wanted: int, most: int) -> None:
    with pytest.raises(InvalidOptions, match=rf"^pool of tea: ready={wanted} and max={most}, which must be"):
        Pool(Clones(), ready=wanted, max=most)


async def test_who_has_waited_long_enough_is_told_why_there_is_none(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool:
        await pool.acquire()
        said = r"^pool of tea: no VM within 0\.01 s: 1 are lent, 0 are being made, 0 are being ended, of at most 1$"
        with pytest.raises(DeadlineExceeded, match=said):
            await pool.acquire(timeout=0.01)
        assert pool.stats().waiting == 0


@pytest.mark.parametrize("timeout", [float("nan"), "soon"])
async def test_a_timeout_that_is_none_is_refused(clones: Clones, timeout: float) -> None:
    async with Pool(clones) as pool:
        with pytest.raises(InvalidOptions, match="timeout"):
            await pool.acquire(timeout=timeout)
        assert ready(pool, 1)


async def test_the_queue_of_those_who_wait_is_bounded(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool, asyncio.TaskGroup() as group:
        await pool.acquire()
        waiting = [group.create_task(pool.acquire()) for _ in range(WAITERS)]
        await turns()
        with pytest.raises(Exhausted, match=rf"^pool of tea: {WAITERS} callers wait already: 1 are lent"):
            await pool.acquire()
        for task in waiting:
            task.cancel()
    assert all(task.cancelled() for task in waiting)


async def test_a_vm_that_nobody_waits_for_any_more_is_kept_only_if_it_is_to_be_ready(clones: Clones) -> None:
    async with Pool(clones, ready=1, max=8) as pool, asyncio.TaskGroup() as group:
        clones.gate.clear()
        waiting = [group.create_task(pool.acquire()) for _ in range(4)]
        await waiting.pop(0)
        await turns()
        for task in waiting:
            task.cancel()
        clones.gate.set()
        await until(lambda: ready(pool, 1))


@pytest.mark.parametrize("state", [PoolState.NEW, PoolState.CLOSED])
async def test_a_pool_that_is_not_open_hands_out_nothing(clones: Clones, state: PoolState) -> None:
    pool = Pool(clones)
    if state is PoolState.CLOSED:
        await pool.close()
    with pytest.raises(StateError, match=f"^pool of tea: cannot hand out a VM while {state.value}$"):
        await pool.acquire()


async def test_a_vm_of_somebody_else_is_not_taken_back(clones: Clones) -> None:
    async with Pool(clones, ready=1) as pool, Pool(clones, ready=1) as other:
        vm = await other.acquire()
        with pytest.raises(StateError, match="^vm fake: cannot take back a VM while not lent by the pool of tea$"):
            await pool.release(vm)
        assert vm.state is State.RUNNING


async def test_another_event_loop_is_refused(clones: Clones) -> None:
    async with Pool(clones) as pool:
        with pytest.raises(StateError, match="^pool of tea: cannot hand out a VM while it belongs to another event loop$"):
            await asyncio.to_thread(asyncio.run, pool.acquire())
        assert ready(pool, 1)


# -- what fails ---------------------------------------------------------------------------------------------------------


async def test_a_pool_whose_first_vms_cannot_be_made_does_not_open(clones: Clones) -> None:
    clones.fails = [None, NotFound("no such template")]
    with pytest.raises(NotFound, match="^no such template$"):
        await Pool(clones, ready=2).open()


async def test_a_vm_that_cannot_be_made_is_the_failure_of_who_waits_for_it(clones: Clones) -> None:
    async with Pool(clones, ready=0) as pool:
        clones.fails = [HostError("no memory")]
        with pytest.raises(HostError, match="^no memory$"):
            await pool.acquire()
        assert (await pool.acquire()).state is State.RUNNING
        assert (pool.stats().failed, pool.stats().made) == (1, 1)


async def test_what_nobody_waits_for_is_tried_again_after_longer_and_longer(
    clones: Clones, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    async with Pool(clones, ready=1) as pool:
        clones.fails = [HostError("no memory")] * 9
        await pool.acquire()
        await turns()
        for failed in range(1, 9):
            assert pool.stats().failed == failed
            delay = min(LAST_DELAY, FIRST_DELAY * 2 ** (failed - 1))
            await clock.forward(delay - 0.5)
            assert pool.stats().failed == failed
            await clock.forward(0.5)
        await clock.forward(LAST_DELAY)
        await until(lambda: ready(pool, 1))
    assert "pool.failed error=no memory" in caplog.text


async def test_while_making_is_put_off_who_waits_is_served_all_the_same(clones: Clones) -> None:
    async with Pool(clones, ready=1) as pool:
        clones.fails = [HostError("no memory")]
        await pool.acquire()
        await until(lambda: pool.stats().failed == 1)
        assert pool.stats().making == 0
        assert (await pool.acquire()).state is State.RUNNING


async def test_a_vm_that_dies_while_it_is_idle_is_replaced(clones: Clones, caplog: pytest.LogCaptureFixture) -> None:
    async with Pool(clones, ready=2) as pool:
        die(clones.machines[0])
        await until(lambda: pool.stats().lost == 1 and ready(pool, 2))
        assert clones.machines[0].state is MachineState.CLOSED
        assert await pool.acquire() is not await pool.acquire()
    assert "pool.lost vm=fake" in caplog.text


async def test_a_vm_that_does_not_answer_is_ended_and_another_is_handed_out(clones: Clones, caplog: pytest.LogCaptureFixture) -> None:
    async with Pool(clones, ready=2) as pool:
        clones.guests[0].modifying = refusing("I have lost my mind")
        vm = await pool.acquire()
        assert (clones.machine(vm), pool.stats().unfit) == (clones.machines[1], 1)
        await until(lambda: clones.machines[0].state is MachineState.CLOSED)
    assert "pool.unfit error=" in caplog.text
    assert "I have lost my mind" in caplog.text


async def test_a_vm_that_is_silent_is_waited_for_only_so_long(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, silence = Clock(monkeypatch), asyncio.Event()

    async def silent(_request: object) -> str | None:
        await silence.wait()
        return None

    async with Pool(clones, ready=2) as pool, asyncio.TaskGroup() as group:
        clones.guests[0].modifying = silent
        asked = group.create_task(pool.acquire())
        await until(lambda: len(clones.guests[0].modified) > REHEARSALS)
        await clock.forward(HEALTH_TIMEOUT)
        assert clones.machine(await asked) is clones.machines[1]
        silence.set()


async def test_after_a_few_vms_that_do_not_answer_the_caller_is_told(clones: Clones) -> None:
    async with Pool(clones, ready=TRIES, max=TRIES + 1) as pool:
        for guest in clones.guests:
            guest.modifying = refusing("I have lost my mind")
        with pytest.raises(GuestError, match="I have lost my mind"):
            await pool.acquire()
        assert pool.stats().unfit == TRIES
        assert (await pool.acquire()).state is State.RUNNING


async def test_a_lent_vm_that_dies_has_given_back_its_place_and_is_its_users_until_closed(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool:
        vm = await pool.acquire()
        die(clones.machine(vm))
        other = await pool.acquire()
        assert vm.state is State.STOPPED
        assert "killed" in str(vm.exit_error)
        await pool.release(vm)
        assert (vm.state, other.state) == (State.CLOSED, State.RUNNING)


async def test_a_lent_vm_that_died_and_was_left_lying_is_closed_with_the_pool(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool:
        vm = await pool.acquire()
        die(clones.machine(vm))
        await until(lambda: vm.state is State.STOPPED)
    assert vm.state is State.CLOSED


async def test_a_failure_that_nobody_foresaw_ends_all_waiting(clones: Clones) -> None:
    async with Pool(clones, ready=0) as pool:
        clones.fails = [RuntimeError("a bug")]
        for _ in range(2):
            with pytest.raises(HostError, match="^pool of tea: out of control: a bug$"):
                await pool.acquire()


# -- giving up at any moment --------------------------------------------------------------------------------------------

MOMENTS = range(0, 60, 3)


@pytest.mark.parametrize("after", MOMENTS)
async def test_opening_that_is_given_up_leaves_nothing(clones: Clones, after: int) -> None:
    pool = Pool(clones, ready=2)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(pool.open())
        for _ in range(after):
            await asyncio.sleep(0)
        opening.cancel()
    assert clones.left == (0 if opening.cancelled() else 2)
    await pool.close()


@pytest.mark.parametrize("ready_ones", [0, 1])
@pytest.mark.parametrize("after", MOMENTS)
async def test_an_acquire_that_is_given_up_loses_no_vm(clones: Clones, after: int, ready_ones: int) -> None:
    async with Pool(clones, ready=ready_ones, max=2) as pool, asyncio.TaskGroup() as group:
        asked = group.create_task(pool.acquire())
        for _ in range(after):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        if not asked.cancelled():
            await pool.release(asked.result())
        await until(lambda: ready(pool, ready_ones))
        assert (pool.stats().lent, pool.stats().waiting, clones.left) == (0, 0, ready_ones)
        assert len({await pool.acquire(), await pool.acquire()}) == 2


async def test_a_vm_handed_to_a_caller_that_gives_up_at_that_moment_goes_to_the_next(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Pool(clones, ready=0, max=1) as pool, asyncio.TaskGroup() as group:
        clones.gate.clear()
        first, second = (group.create_task(pool.acquire()) for _ in range(2))
        await turns()
        balance, made = pool._balance, pool._been

        def as_soon_as_it_is_handed_over() -> None:
            if made.made == 1:
                first.cancel()
            balance()

        monkeypatch.setattr(pool, "_balance", as_soon_as_it_is_handed_over)
        clones.gate.set()
        vm = await second
        assert (first.cancelled(), clones.machine(vm), len(clones.machines)) == (True, clones.machines[0], 1)


async def test_a_release_that_is_given_up_is_carried_out(clones: Clones) -> None:
    async with Pool(clones, ready=0, max=1) as pool, asyncio.TaskGroup() as group:
        vm = await pool.acquire()
        releasing = group.create_task(pool.release(vm))
        await asyncio.sleep(0)
        releasing.cancel()
        await asyncio.wait([releasing])
        assert (releasing.cancelled(), vm.state, pool.stats().lent, pool.stats().ending) == (True, State.CLOSED, 0, 0)


async def refused(work: Coroutine[object, object, object]) -> str:
    """Return with what `work` is refused, or nothing."""
    try:
        await work
    except StateError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("after", MOMENTS)
async def test_a_pool_may_be_closed_while_it_refills_and_while_somebody_waits(clones: Clones, after: int) -> None:
    async with asyncio.TaskGroup() as group:
        async with Pool(clones, ready=1, max=2) as pool:
            asked = [group.create_task(refused(pool.acquire())) for _ in range(3)]
            for _ in range(after):
                await asyncio.sleep(0)
        assert clones.left == 0
    told = [task.result() for task in asked]
    assert set(told) <= {"", "pool of tea: cannot hand out a VM while closed"}
    assert told.count("") == pool.stats().acquired <= 2


async def test_a_pool_that_is_closed_while_it_opens_says_so(clones: Clones) -> None:
    clones.gate.clear()
    pool = Pool(clones, ready=1)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(refused(pool.open()))
        await turns()
        await pool.close()
    assert opening.result() == "pool of tea: cannot open while closed"


# -- memory -------------------------------------------------------------------------------------------------------------


async def test_while_memory_is_short_idle_vms_are_given_up_and_only_who_waits_gets_one(
    clones: Clones, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: Host
) -> None:
    clock = Clock(monkeypatch)
    async with Pool(clones, ready=3, max=5) as pool:
        host.says(SHORT)
        for idle in (1, 0, 0):
            await clock.forward(LOOK_EVERY)
            await until(lambda idle=idle: ready(pool, idle))  # type: ignore[misc]
        assert pool.stats().memory_short
        vm = await pool.acquire()
        assert (vm.state, pool.stats().idle, pool.stats().making) == (State.RUNNING, 0, 0)
        host.says(PLENTY)
        await clock.forward(LOOK_EVERY)
        await until(lambda: ready(pool, 3))
        assert not pool.stats().memory_short
    assert caplog.text.count("pool.memory.short") == 1


async def test_a_pool_that_opens_while_memory_is_short_has_nothing_ready(clones: Clones, host: Host) -> None:
    host.says(SHORT)
    async with Pool(clones, ready=3) as pool:
        assert ready(pool, 0)


async def test_a_host_that_does_not_tell_of_its_memory_is_never_short_of_it(clones: Clones, host: Host) -> None:
    host.says(None)
    async with Pool(clones, ready=2) as pool:
        assert (ready(pool, 2), pool.stats().memory_short) == (True, False)
