"""What a VM holds of one kind of device: reference counts, and one table of states through which each thing goes.

The table is changed at once, the outside world meanwhile: nothing is locked, and things that do not concern each other are attached and
detached side by side. Who asks for a thing that is being attached waits for it and shares its outcome.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar, final

from utilityvm.kit.aio import finish
from utilityvm.kit.errors import NotFound, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event


class Held(StrEnum):
    """Where a thing is on its way into a VM and out of it."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    CHANGING = "changing"
    DETACHING = "detaching"
    HALF = "half detached"
    """The host still has it and the guest has not: detaching is to be finished."""
    DETACHED = "detached"


class Do(StrEnum):
    """What may happen to it."""

    SHARE = "attach once more"
    CHANGE = "change"
    DETACH = "detach"
    RECORD = "be recorded"
    DONE = "be done"
    FAIL = "fail"
    HALVE = "leave the guest"
    FAIL_HALF = "fail half-way"


LIFE: Final[Mapping[tuple[Held, Do], Held]] = {
    (Held.ATTACHING, Do.DONE): Held.ATTACHED,
    (Held.ATTACHING, Do.FAIL): Held.DETACHED,
    (Held.ATTACHING, Do.FAIL_HALF): Held.HALF,
    (Held.ATTACHED, Do.SHARE): Held.ATTACHED,
    (Held.ATTACHED, Do.CHANGE): Held.CHANGING,
    (Held.ATTACHED, Do.DETACH): Held.DETACHING,
    (Held.ATTACHED, Do.RECORD): Held.ATTACHED,
    (Held.CHANGING, Do.DONE): Held.ATTACHED,
    (Held.CHANGING, Do.FAIL): Held.ATTACHED,
    (Held.CHANGING, Do.FAIL_HALF): Held.ATTACHED,
    (Held.DETACHING, Do.DONE): Held.DETACHED,
    (Held.DETACHING, Do.HALVE): Held.HALF,
    (Held.DETACHING, Do.FAIL): Held.ATTACHED,
    (Held.DETACHING, Do.FAIL_HALF): Held.HALF,
    (Held.HALF, Do.DETACH): Held.DETACHING,
}
"""The whole way. What is not here is refused with `StateError` and changes nothing; a call that comes while it moves waits."""

_MOVING: Final = {Held.ATTACHING, Held.CHANGING, Held.DETACHING}

T = TypeVar("T")
C_contra = TypeVar("C_contra", contravariant=True)


class Effects(Protocol[C_contra]):
    """How things of one kind come into the VM and out of it."""

    async def attach(self, thing: C_contra) -> None:
        """Give it to the VM. One that fails with `half_done` has left it on the host."""
        ...

    async def detach(self, thing: C_contra, *, from_guest: bool) -> None:
        """Take it away; not `from_guest` when the guest has given it up before."""
        ...


@final
class Holding(Generic[T]):
    """One thing: `thing` says what, `references` how often it was asked for and not yet given back."""

    def __init__(self, subject: str, thing: T) -> None:
        self.thing, self.references = thing, 1
        self.failure: UtilityVMError | None = None
        """Why it was not attached."""
        self._life = Life(subject, LIFE, Held.ATTACHING)
        self._settled = asyncio.Event()

    @property
    def state(self) -> Held:
        """Where it is."""
        return self._life.state

    def step(self, do: Do) -> None:
        """Move as the table says.

        Raises:
            StateError: the table says nothing.
        """
        self._life.step(do)
        (self._settled.clear if self.state in _MOVING else self._settled.set)()

    async def settle(self) -> None:
        """Wait until it does not move."""
        await self._settled.wait()

    async def carry_out(self, work: Awaitable[None], failed: Callable[[BaseException], Do], done: Do = Do.DONE) -> None:
        """Await the effect of a step that has begun, and settle."""
        try:
            await work
        except BaseException as error:
            self.failure = error if isinstance(error, UtilityVMError) else None
            self.step(failed(error))
            raise
        self.step(done)


def _failed(error: BaseException) -> Do:
    """Return how far what ended with `error` has come; of a stranger nothing is known, and so the host may have acted."""
    return Do.FAIL_HALF if not isinstance(error, UtilityVMError) or error.half_done else Do.FAIL


@final
class Holdings(Generic[T]):
    """The things of one kind that the VM `vm_id` has, by key. `kind` names one in errors, as ``SCSI disk``."""

    def __init__(self, vm_id: VmId, kind: str, effects: Effects[T]) -> None:
        self._vm_id, self._kind, self._effects = vm_id, kind, effects
        self._held: dict[str, Holding[T]] = {}

    def adopt(self, key: str, thing: T, references: int = 1) -> None:
        """Hold a thing that the VM has from its start."""
        held = self._held[key] = Holding(self._subject(key), thing)
        held.references = references
        held.step(Do.DONE)

    def still(self) -> list[Holding[T]]:
        """Return all of them, of which none is on its way.

        Raises:
            StateError: one is, or is half detached.
        """
        for held in self._held.values():
            held.step(Do.RECORD)
        return list(self._held.values())

    def __iter__(self) -> Iterator[Holding[T]]:
        """All of them, also those that move, in the order of being asked for."""
        return iter(list(self._held.values()))

    def find(self, key: str) -> Holding[T] | None:
        """Return what is held under `key`, whatever its state."""
        return self._held.get(key)

    def the(self, key: str) -> Holding[T]:
        """Return what is held under `key`.

        Raises:
            NotFound: nothing is.
        """
        held = self._held.get(key)
        if held is None:
            raise NotFound("not attached", hint=f"{self._subject(key)} is not known")
        return held

    async def settled(self, key: str) -> Holding[T] | None:
        """Return what is held under `key` once it does not move any more, None when nothing is."""
        while (held := self._held.get(key)) is not None and held.state in _MOVING:
            await held.settle()
        return held

    async def take(self, key: str, make: Callable[[], T], admit: Callable[[T], None] = lambda _: None) -> Holding[T]:
        """Attach what `make` makes, or count one more reference to what is attached already and `admit` lets pass.

        A cancelled call is carried out, and then given back.

        Raises:
            StateError: it is half detached, and who detached it has not yet asked for the rest.
            UtilityVMError: what `make`, `admit` and attaching raise; those who waited get the same.
        """
        while (held := self._held.get(key)) is not None:
            admit(held.thing)
            if held.state is Held.ATTACHING:
                await held.settle()
                if held.failure is not None:
                    raise held.failure
            elif held.state in _MOVING:
                await held.settle()
            elif held.state is Held.HALF and held.references == 0:
                await self._detach(key, held)
            else:
                held.step(Do.SHARE)
                held.references += 1
                return held
        held = self._held[key] = Holding(self._subject(key), make())
        await self._attach(key, held)
        return held

    async def drop(self, key: str) -> None:
        """Give back one reference, and detach with the last. A call that is cancelled while it detaches is carried out.

        Raises:
            NotFound: nothing is held under `key`.
            UtilityVMError: it could not be detached: it is attached as before, or half detached; the same call may be made again.
        """
        await self.settled(key)
        held = self.the(key)
        if held.references > 1:
            held.references -= 1
        else:
            await self._detach(key, held)

    async def halve(self, key: str, leave_guest: Callable[[T], Awaitable[None]]) -> bool:
        """Give back one reference as far as the guest is concerned: with the last the thing leaves it by `leave_guest`.

        Returns whether it is half detached now: then `drop` takes it away. A call that is cancelled is carried out.

        Raises:
            NotFound: nothing is held under `key`.
            UtilityVMError: what `leave_guest` raises: it is attached as before.
        """
        await self.settled(key)
        held = self.the(key)
        if held.references > 1:
            held.references -= 1
            return False
        if held.state is not Held.HALF:
            held.step(Do.DETACH)
            await finish(held.carry_out(leave_guest(held.thing), _failed, Do.HALVE), within=None)
        return True

    async def change(self, key: str, effect: Callable[[T], Awaitable[T]], references: int = 0) -> Holding[T]:
        """Let `effect` change the thing, one change at a time, and keep what it returns and `references` more once it is done.

        Raises:
            NotFound: nothing is held under `key`.
            StateError: it is half detached.
            UtilityVMError: what `effect` raises; the thing is as it was.
        """
        await self.settled(key)
        held = self.the(key)
        held.step(Do.CHANGE)

        async def work() -> None:
            changed = await effect(held.thing)
            held.thing, held.references = changed, held.references + references

        await finish(held.carry_out(work(), _failed), within=None)
        return held

    def _subject(self, key: str) -> str:
        return f"vm {self._vm_id}: {self._kind} {key}"

    async def _attach(self, key: str, held: Holding[T]) -> None:
        async def work() -> None:
            try:
                await held.carry_out(self._effects.attach(held.thing), _failed)
            except BaseException:
                held.references = 0
                if held.state is Held.DETACHED:
                    del self._held[key]
                raise

        try:
            await finish(work(), within=None)
        except asyncio.CancelledError:
            if self._held.get(key) is held and held.references > 0:
                await self._give_back(key, held)
            raise

    async def _give_back(self, key: str, held: Holding[T]) -> None:
        """Drop what its caller gave up. When it cannot be detached nobody refers to it any more."""
        try:
            await self.drop(key)
        except UtilityVMError as error:
            held.references = 0
            event("vm.device.kept", level=logging.ERROR, vm=self._vm_id, resource=f"{self._kind} {key}", error=str(error))

    async def _detach(self, key: str, held: Holding[T]) -> None:
        half = held.state is Held.HALF
        held.step(Do.DETACH)

        async def effect() -> None:
            try:
                await self._effects.detach(held.thing, from_guest=not half)
            except NotFound:
                if not half:  # else the host had taken it away, whatever it said
                    raise

        async def work() -> None:
            await held.carry_out(effect(), lambda error: Do.FAIL_HALF if half else _failed(error))
            del self._held[key]

        await finish(work(), within=None)
