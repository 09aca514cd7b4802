"""A change of a VM's resources in its two halves: what the compute service does, and what the guest's agent does.

Semantics: the original's `modify`, with the halves that it drops carried out. Whoever keeps the guest connection splits: the VM, or
with an internal connection the driver.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import structs

from utilityvm.kit.aio import finish
from utilityvm.kit.errors import InvalidOptions, UtilityVMError
from utilityvm.kit.trace import event
from utilityvm.schema.requests import ModifySettingRequest

UNDO: Final = 30.0
"""Seconds that taking back the host's half may take."""


async def in_two_halves(
    request: ModifySettingRequest,
    host: Callable[[ModifySettingRequest], Awaitable[None]],
    guest: Callable[[object], Awaitable[None]],
    name: str,
) -> None:
    """Carry out `request` by `host` and, for its guest request, by `guest`; `name` is the VM's.

    What is added is there on the host before the guest hears of it, and is taken back when the guest fails. What is removed is given
    up by the guest first; when the host fails after that, the same request may be made again. An update reaches the host first.
    `UtilityVMError.half_done` of what is raised says that one half was carried out, and not taken back.

    Raises:
        InvalidOptions: ``PreAdd`` of a resource of the host, which has no meaning.
        Exception: what the halves raise, with the half in the text.
    """
    half, mine = structs.replace(request, guest_request=None), request.guest_request
    if mine is None:
        await host(half)
        return
    if not request.resource_path:
        with _during("guest modify"):
            await guest(mine)
        return
    match request.request_type:
        case "Add":
            with _during("adding VM resources"):
                await host(half)
            try:
                with _during("guest modify"):
                    await guest(mine)
            except BaseException as error:
                left = not await _taken_back(half, host, name)
                if isinstance(error, UtilityVMError):
                    error.half_done = left
                raise
        case "Remove":
            with _during("guest modify"):
                await guest(mine)
            with _during("removing VM resources", half_done=True):
                await host(half)
        case "PreAdd":
            raise InvalidOptions(f"{name}: {request.resource_path}: PreAdd is for the guest alone")
        case _:
            with _during("updating VM resources"):
                await host(half)
            with _during("guest modify", half_done=True):
                await guest(mine)


async def _taken_back(added: ModifySettingRequest, host: Callable[[ModifySettingRequest], Awaitable[None]], name: str) -> bool:
    """Remove what was added, and say whether it is gone. When that fails too, the caller's own reason says more."""

    async def remove() -> None:
        await host(structs.replace(added, request_type="Remove"))

    try:
        await finish(remove(), within=UNDO)
    except (UtilityVMError, TimeoutError) as error:
        event("vm.modify.undo.failed", level=logging.ERROR, vm=name.removeprefix("vm "), resource=added.resource_path, error=str(error))
        return False
    return True


@contextmanager
def _during(what: str, *, half_done: bool = False) -> Iterator[None]:
    try:
        yield
    except UtilityVMError as error:
        error.during(what).half_done = half_done
        raise
