"""A pool: clones of a template that are ready before somebody asks for one."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, final

import msgspec
from msgspec.structs import asdict

from utilityvm.guest.spec import check_timeout
from utilityvm.kit.aio import Scope, finish, together
from utilityvm.kit.errors import DeadlineExceeded, Exhausted, HostError, InvalidOptions, StateError, UtilityVMError
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.memory import MEMINFO
from utilityvm.kit.trace import event, span
from utilityvm.options.network import NetworkWish
from utilityvm.templates import member_life
from utilityvm.templates.member import Member, Recipe
from utilityvm.templates.member_life import MemberState
from utilityvm.templates.pool_life import LIFE, Do, PoolState
from utilityvm.templates.ports import Source
from utilityvm.templates.refill import Counts, Wish, is_short, to_give_up, to_make
from utilityvm.templates.template import Template
from utilityvm.vm.life import State
from utilityvm.vm.uvm import UtilityVM

WAITERS: Final = 1024
"""Callers of `Pool.acquire` that may wait at one time."""

AT_ONCE: Final = 4
"""VMs that are made at one time, and no more than there are processors."""

HEALTH_TIMEOUT: Final = 5.0
"""Seconds in which a VM that is to be handed out runs on and answers; else another is."""

TRIES: Final = 3
"""VMs that are tried for one caller."""

REST: Final = 0.05
"""Seconds after a VM was taken, and once more after it was handed out, before others are made to be ready: who waits for it, and who asks
next, shall not wait behind that."""

LOOK_EVERY: Final = 2.0
"""Seconds from one look at the host's memory to the next."""

FIRST_DELAY: Final = 1.0
"""Seconds in which none is made to be ready after one could not be made; twice as many after each further one, up to `LAST_DELAY`."""

LAST_DELAY: Final = 60.0
"""See `FIRST_DELAY`."""


class _Been(msgspec.Struct):
    """How often each has been since the pool was opened; see `PoolStats`."""

    made: int = 0
    failed: int = 0
    lost: int = 0
    unfit: int = 0
    acquired: int = 0


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of a pool: VMs that are `idle`, `making` (being made), `lent` (or just being handed out), `ending` (being ended); and
    callers that are `waiting`. While `memory_short`, no VM is made before somebody waits for it, and idle ones are ended.

    How often each has been: VMs were `made`, could not be made (`failed`), died while they were idle (`lost`), did not answer when they
    were to be handed out (`unfit`), were handed out (`acquired`).
    """

    idle: int
    making: int
    lent: int
    ending: int
    waiting: int
    memory_short: bool
    made: int
    failed: int
    lost: int
    unfit: int
    acquired: int


@final
class Pool:
    """Clones of a template that have been started before they are wanted.

        async with Pool(await open_template("python"), ready=4, max=32) as pool:
            async with await pool.acquire() as vm:
                print((await vm.run(["uname", "-r"])).text)

    It is opened and closed as an async context, or by `open` and `close`, and it owns its VMs: closing it ends those that are lent, too.
    VMs that nobody has are paused, and use no processor. A VM that was handed out is never handed out again.
    """

    def __init__(
        self,
        template: Template | Source,
        *,
        ready: int = 1,
        max: int = 16,  # noqa: A002 (no other word says it)
        network: NetworkWish | None = None,
        require_kvm: bool = False,
        require_jail: bool = False,
    ) -> None:
        """Say what is wanted; nothing is made before it is opened.

        `template` is a `Template`, or anything else of an `id` with a method `clone` as its. `ready` VMs are kept idle, and there are never
        more than `max`, with those that are lent. The rest is as in `Template.clone`, for each of them.

        Raises:
            InvalidOptions: there can be no such pool.
        """
        if not 0 <= ready <= max or max < 1:
            raise InvalidOptions(f"pool of {template.id}: ready={ready} and max={max}, which must be 0 <= ready <= max, and max 1 or more")
        self._recipe = Recipe(source=template, network=network, require_kvm=require_kvm, require_jail=require_jail)
        self._wish = Wish(ready, max, min(AT_ONCE, os.cpu_count() or 1))
        self._name = f"pool of {template.id}"
        self._life = Life(self._name, LIFE, PoolState.NEW)
        self._scope = Scope(self._name, self._broken)
        self._members: set[Member] = set()
        self._idle: deque[Member] = deque()
        self._waiting: deque[asyncio.Future[Member]] = deque()
        self._answers: set[asyncio.Future[None]] = set()
        self._filled: asyncio.Future[None] | None = None
        self._been, self._short = _Been(), False
        self._failures = 0
        self._delay: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._fault: HostError | None = None
        self._closing = asyncio.Lock()

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> PoolState:
        """Where it is in its life."""
        return self._life.state

    def stats(self) -> PoolStats:
        """Say what there is of it, and what has been."""
        return PoolStats(
            idle=len(self._idle),
            making=self._count(MemberState.MAKING),
            lent=self._count(MemberState.LEAVING, MemberState.LENT),
            ending=self._count(MemberState.ENDING),
            waiting=len(self._waiting),
            memory_short=self._short,
            **asdict(self._been),
        )

    # -- what it does -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the VMs that are to be ready (fewer, while the host's memory is short). Opening that fails or is cancelled leaves nothing.

        Raises:
            StateError: it was opened before, or is closed meanwhile.
            UtilityVMError: why the first VM that could not be made could not, as `Template.clone` and `UtilityVM.start`.
        """
        self._life.step(Do.OPEN)
        self._filled = asyncio.get_running_loop().create_future()
        try:
            self._look_at_memory()
            self._scope.start("memory", self._watch_memory())
            self._balance()
            await self._filled
            self._life.step(Do.FILLED)
        except BaseException:
            await self.close()
            raise

    async def acquire(self, *, timeout: float | None = None) -> UtilityVM:
        """Hand out a VM that runs, and that nobody has had: one that is ready, else the first that will be.

        Give it back by `release`, or close it. Who waits longest is served first. `timeout` is in seconds (None: none).

        Raises:
            InvalidOptions: `timeout` is no number of seconds.
            StateError: the pool is not open, or is closed meanwhile; or it belongs to another event loop.
            DeadlineExceeded: there was none within `timeout`.
            Exhausted: `WAITERS` callers wait already.
            UtilityVMError: the VM that was made for this caller could not be made; or none of `TRIES` answered, and this is the last.
        """
        check_timeout(timeout)
        self._check(Do.ACQUIRE)
        try:
            with span("pool.acquire", level=logging.DEBUG):
                async with asyncio.timeout(timeout):
                    return await self._acquire()
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: no VM within {timeout:g} s: {self._told()}") from error

    async def release(self, vm: UtilityVM) -> None:
        """Close a VM that was handed out; its place is free then. A second call does nothing. A cancelled call is carried out.

        Raises:
            StateError: the pool did not hand it out, or was never opened.
            DeadlineExceeded: it could not be ended within `vm.uvm.CLEANUP_TIMEOUT`.
        """
        self._check(Do.RELEASE)
        member = next((one for one in self._members if one.vm is vm and one.state in {MemberState.LENT, MemberState.ENDED}), None)
        if member is None and vm.state is not State.CLOSED:
            raise StateError(f"vm {vm.id}", f"not lent by the {self._name}", Do.RELEASE.value)
        if member is not None and member.state is MemberState.LENT:
            member.step(member_life.Do.END)
        try:
            await vm.close()
        finally:
            if member is not None:
                self._gone(member)

    async def close(self) -> None:
        """End all its VMs. Callers that wait get `StateError`. May be called at any time, and again. A cancelled call is carried out.

        Raises:
            UtilityVMError: one of the VMs could not be ended, as `UtilityVM.close`; the others have been.
        """
        self._life.step(Do.CLOSE)
        self._refuse_waiters(lambda do: StateError(self._name, PoolState.CLOSED.value, do.value))
        await finish(self._end_all(), within=None)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # -- handing out ------------------------------------------------------------------------------------------------

    async def _acquire(self) -> UtilityVM:
        for left in reversed(range(TRIES)):
            member = await self._next()
            try:
                await self._woken(member)
                vm = member.lend()
            except UtilityVMError as error:
                self._end(member)
                self._life.check(Do.ACQUIRE)  # closed meanwhile: that is why
                self._been.unfit += 1
                event("pool.unfit", level=logging.WARNING, error=error.message)
                if not left:
                    raise
            except BaseException:
                self._end(member)  # others are made when it has ended
                raise
            else:
                self._been.acquired += 1
                self._rest()
                return vm
        raise AssertionError("the last try returns or raises")

    async def _woken(self, member: Member) -> None:
        """Wait until a VM answers; who gives up does not wait for its answer."""
        self._life.check(Do.ACQUIRE)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        self._scope.start("wake", self._wake(member, answer))
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                await answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"vm {member.there.id}: did not answer within {HEALTH_TIMEOUT:g} s of its being resumed") from error
        finally:
            self._answers.discard(answer)

    async def _wake(self, member: Member, answer: "asyncio.Future[None]") -> None:
        failure: UtilityVMError | None = None
        try:
            await member.wake()
        except UtilityVMError as error:
            failure = error
        if answer.done():
            return  # nobody waits for it any more
        if failure is None:
            answer.set_result(None)
        else:
            answer.set_exception(failure)

    async def _next(self) -> Member:
        """Take the VM that has been idle longest, or wait for one."""
        self._life.step(Do.ACQUIRE)
        if self._fault is not None:
            raise self._fault
        if self._idle:  # then nobody waits
            member = self._idle.popleft()
            member.step(member_life.Do.TAKE)
            self._rest()
            return member
        if len(self._waiting) >= WAITERS:
            raise Exhausted(f"{self._name}: {WAITERS} callers wait already: {self._told()}", hint="a larger max=, or fewer callers")
        waiter: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._balance()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: "asyncio.Future[Member]") -> None:
        """Somebody has given up waiting; what was handed over just now is there for others."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not waiter.cancelled() and waiter.exception() is None:
            member = waiter.result()
            if member.rests:
                member.step(member_life.Do.PUT_BACK)
                self._offer(member, first=True)
            else:
                self._end(member)

    def _offer(self, member: Member, *, first: bool = False) -> None:
        """Give an idle VM to who waits longest; else it waits itself, unless as many as are wanted do."""
        if (waiter := self._first_waiter()) is not None:
            member.step(member_life.Do.TAKE)
            waiter.set_result(member)
        elif self._short or len(self._idle) >= self._wish.ready:
            self._end(member)
        else:
            (self._idle.appendleft if first else self._idle.append)(member)

    def _first_waiter(self) -> "asyncio.Future[Member] | None":
        """Take who waits longest out of the queue, if anybody still waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    # -- making -----------------------------------------------------------------------------------------------------

    def _balance(self) -> None:
        """Begin to make as many as are lacking: after each change."""
        if self._life.state not in {PoolState.FILLING, PoolState.OPEN}:
            return
        self._members = {member for member in self._members if not member.is_over}
        for _ in range(to_make(self._wish, self._counts(), thrifty=self._short or bool(self._delay or self._pause))):
            member = Member(self._name)
            self._members.add(member)
            self._scope.start("make", self._make(member))
        if self._filled is not None and not self._filled.done() and not self._count(MemberState.MAKING):
            self._filled.set_result(None)

    async def _make(self, member: Member) -> None:
        try:
            with span("pool.make", level=logging.DEBUG):
                await member.make(self._recipe)
        except UtilityVMError as error:
            await self._could_not_make(member, error)
            return
        member.step(member_life.Do.MADE)
        self._been.made += 1
        self._failures = 0
        self._scope.start("watch", self._watch(member))
        self._offer(member)
        self._balance()

    async def _could_not_make(self, member: Member, error: UtilityVMError) -> None:
        """It is the failure of who waits longest. What nobody waits for is tried again later, each time after a longer while."""
        event("pool.failed", level=logging.WARNING, error=error.message)
        self._been.failed += 1
        self._failures += 1
        self._delay = _instead_of(self._delay, min(LAST_DELAY, FIRST_DELAY * 2 ** min(self._failures - 1, 10)), self._try_again)
        if self._filled is not None and not self._filled.done():
            self._filled.set_exception(error)
        elif (waiter := self._first_waiter()) is not None:
            waiter.set_exception(error)
        member.step(member_life.Do.END)
        await self._close(member)

    def _try_again(self) -> None:
        self._delay = None
        self._balance()

    def _rest(self) -> None:
        self._pause = _instead_of(self._pause, REST, self._rested)

    def _rested(self) -> None:
        self._pause = None
        self._balance()

    # -- watching ---------------------------------------------------------------------------------------------------

    async def _watch(self, member: Member) -> None:
        """Notice the end of a VM that is idle, or lent."""
        vm = member.there
        await vm.wait()
        if member.state is MemberState.IDLE:
            self._been.lost += 1
            event("pool.lost", level=logging.WARNING, vm=vm.id)
            self._end(member)
        elif member.state is MemberState.LENT:
            member.step(member_life.Do.ENDED)  # what is left of it is its user's, who may want to know why
            self._balance()

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)  # nothing tells of it without rights
            self._look_at_memory()
            if self._short:
                for _ in range(to_give_up(self._counts())):
                    self._end(self._idle[0])
            self._balance()

    def _look_at_memory(self) -> None:
        was = self._short
        with suppress(OSError):  # a host that does not tell
            self._short = is_short(MEMINFO.read_text(), was_short=was)
        if self._short and not was:
            event("pool.memory.short", level=logging.WARNING, message="fewer VMs are ready until it is over")

    # -- ending -----------------------------------------------------------------------------------------------------

    def _end(self, member: Member) -> None:
        """Let a VM end that shall not be handed out. Its place is free when it has."""
        if member in self._idle:
            self._idle.remove(member)
        if member.state not in {MemberState.ENDING, MemberState.ENDED}:
            member.step(member_life.Do.END)
            self._scope.start("end", self._close(member))

    async def _close(self, member: Member) -> None:
        try:
            await member.close()
        except UtilityVMError as error:
            event("pool.stuck", level=logging.ERROR, error=error.message)
        self._gone(member)

    def _gone(self, member: Member) -> None:
        if member.state is MemberState.ENDING:
            member.step(member_life.Do.ENDED)
        self._balance()

    async def _end_all(self) -> None:
        for timer in filter(None, (self._delay, self._pause)):
            timer.cancel()
        async with self._closing:
            await self._scope.aclose()
            members, self._members = self._members, set()
            self._idle.clear()
            await together(*(member.close() for member in members))

    def _broken(self, error: Exception) -> None:
        """A task of ours failed as none should: nobody must wait for it for ever."""
        self._fault = HostError(f"{self._name}: out of control: {error}", hint="close it")
        fault = self._fault
        self._refuse_waiters(lambda _: fault)

    def _refuse_waiters(self, why: Callable[[Do], UtilityVMError]) -> None:
        waiting: list[tuple[asyncio.Future[None] | asyncio.Future[Member], Do]] = [(waiter, Do.ACQUIRE) for waiter in self._waiting]
        waiting += [(answer, Do.ACQUIRE) for answer in self._answers]
        waiting += [] if self._filled is None else [(self._filled, Do.OPEN)]
        for waiter, do in waiting:
            if not waiter.done():
                waiter.set_exception(why(do))
        self._waiting.clear()

    # -- counting ---------------------------------------------------------------------------------------------------

    def _count(self, *states: MemberState) -> int:
        return sum(member.state in states for member in self._members)

    def _counts(self) -> Counts:
        places = sum(member.state is not MemberState.ENDED for member in self._members)
        return Counts(len(self._idle), self._count(MemberState.MAKING), places, len(self._waiting))

    def _told(self) -> str:
        told = self.stats()
        return f"{told.lent} are lent, {told.making} are being made, {told.ending} are being ended, of at most {self._wish.most}"

    def _check(self, do: Do) -> None:
        """Refuse what is not in the table, and to wait in one event loop for what happens in another: it would be for ever."""
        self._life.check(do)
        if self._filled is not None and asyncio.get_running_loop() is not self._filled.get_loop():
            hint = "use a pool in the asyncio.run that opened it, or make it by utilityvm.sync, which may be called from anywhere"
            raise StateError(self._name, "it belongs to another event loop", do.value, hint=hint)


def _instead_of(timer: asyncio.TimerHandle | None, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
    """Return a timer in the place of another, which is stopped."""
    if timer is not None:
        timer.cancel()
    return asyncio.get_running_loop().call_later(seconds, then)
