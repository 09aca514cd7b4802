"""A change of a VM's resources in its two halves: what the compute service does, and what the guest's agent does.

Semantics: the original's `modify`, with the halves that it drops carried out. Whoever keeps the guest connection splits: the VM, or
with an internal connection the driver.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec
from msgspec import structs

from utilityvm.kit.aio import finish
from utilityvm.kit.errors import DeadlineExceeded, InvalidOptions, UtilityVMError
from utilityvm.kit.trace import event
from utilityvm.schema.requests import ModifySettingRequest

HOST_TIMEOUT: Final = 120.0
"""Seconds that the host's half may take, and so may taking it back."""

T = TypeVar("T")
Told = Mapping[str, object] | None
"""What the host says that the guest must know of its half: members for the settings of the guest's request."""

Host = Callable[[ModifySettingRequest], Awaitable[Told]]
Guest = Callable[[object], Awaitable[None]]


async def in_two_halves(request: ModifySettingRequest, host: Host, guest: Guest | None, name: str) -> Told:
    """Carry out `request` by `host` and, for its guest request, by `guest`; `name` is the VM's. No `guest`: the host has the connection.

    Returns what the host tells for the guest, to whom it was said if there is a request for it.

    What is added is there on the host before the guest hears of it, and is taken back when the guest fails or the caller gives up.
    What is removed is given up by the guest first; when the host fails after that, the same request may be made again. An update reaches
    the host first. `UtilityVMError.half_done` of what is raised says that one half was carried out, and not taken back.

    Raises:
        InvalidOptions: ``PreAdd`` of a resource of the host, which has no meaning.
        DeadlineExceeded: the host was not done within `HOST_TIMEOUT`; what became of it is not known.
        Exception: what the halves raise, with the half in the text.
    """
    half, mine = (request, None) if guest is None else (structs.replace(request, guest_request=None), request.guest_request)
    if guest is None or mine is None:
        return await (_add(half, host, name) if request.request_type == "Add" else _finish(host(half), half, name))
    told: Told = None

    async def tell(*, half_done: bool = False) -> None:
        with _during("guest modify", half_done=half_done):
            await guest(_with(mine, told))

    if not request.resource_path:
        await tell()
        return None
    match request.request_type:
        case "Add":
            with _during("adding VM resources"):
                told = await _add(half, host, name)
            try:
                await tell()
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError):  # it may have been done
                    await _taken_back(guest(_removal(mine)), half, name)
                left = not await _taken_back(host(structs.replace(half, request_type="Remove")), half, name)
                if isinstance(error, UtilityVMError):
                    error.half_done = left
                raise
        case "Remove":
            await tell()
            with _during("removing VM resources", half_done=True):
                await _finish(host(half), half, name)
        case "PreAdd":
            raise InvalidOptions(f"{name}: {request.resource_path}: PreAdd is for the guest alone")
        case _:
            with _during("updating VM resources"):
                await _finish(host(half), half, name)
            await tell(half_done=True)
    return told


def _with(request: object, told: Told) -> object:
    """Return the guest's request with what the host tells, in whichever shape it is."""
    if not told:
        return request
    plain = msgspec.to_builtins(request)
    return {**plain, "Settings": {**plain.get("Settings", {}), **told}}


async def _add(half: ModifySettingRequest, host: Host, name: str) -> Told:
    """Carry out an addition. One that is done when its caller has given up is taken back."""
    there = False

    async def add() -> Told:
        nonlocal there
        told = await host(half)
        there = True
        return told

    try:
        return await _finish(add(), half, name)
    except asyncio.CancelledError:
        if there:
            await _taken_back(host(structs.replace(half, request_type="Remove")), half, name)
        raise


def _removal(added: object) -> object:
    """Return the guest's request that undoes an addition, in whichever shape it is."""
    if isinstance(added, msgspec.Struct):
        return structs.replace(added, request_type="Remove")
    return {**added, "RequestType": "Remove"} if isinstance(added, Mapping) else added


async def _taken_back(removal: Awaitable[object], added: ModifySettingRequest, name: str) -> bool:
    """Undo half of an addition, and say whether it is gone. When that fails too, the caller's own reason says more."""
    try:
        await _finish(removal, added, name)
    except UtilityVMError as error:
        event("vm.modify.undo.failed", level=logging.ERROR, vm=name.removeprefix("vm "), resource=added.resource_path, error=error.message)
        return False
    return True


async def _finish(work: Awaitable[T], half: ModifySettingRequest, name: str) -> T:
    async def run() -> T:
        return await work

    try:
        return await finish(run(), within=HOST_TIMEOUT)
    except TimeoutError as error:
        what = f"{half.request_type or 'change'} of {half.resource_path}"
        raise DeadlineExceeded(f"{name}: {what}: the host was not done within {HOST_TIMEOUT:g} s") from error


@contextmanager
def _during(what: str, *, half_done: bool = False) -> Iterator[None]:
    try:
        yield
    except UtilityVMError as error:
        error.during(what).half_done = half_done
        raise
