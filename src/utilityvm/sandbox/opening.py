"""From the name of an image to a container in a VM of its own; the image is prepared while the VM boots."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.containers.container import Container
from utilityvm.containers.scratch import SCRATCH_SIZE, check_size
from utilityvm.containers.wish import Volume
from utilityvm.devices.share import check_sharable
from utilityvm.guest.process import in_words
from utilityvm.images.depot import Tell, tell_nobody
from utilityvm.images.formats import Platform
from utilityvm.images.image import Image
from utilityvm.images.names import parse
from utilityvm.images.skopeo import Access
from utilityvm.images.store import ImageStore
from utilityvm.kit.aio import finish, together
from utilityvm.kit.errors import GuestError, HostError, NotFound, Unsupported, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.trace import span
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.network import NetworkWish
from utilityvm.store.layout import Layout
from utilityvm.templates.boots import BootTemplates, VmsOfHost, boot
from utilityvm.vm.look import look
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire.oci import Spec

SHIPPED: Final = "busybox"
"""The image that comes with the boot files."""


class Pull(StrEnum):
    """When an image is brought from its registry."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is opened: the image by its name, the container that `spec` makes of it with `volumes`, and the VM.

    `scratch_size` is in bytes. A root that can only be read has such a disk too: places to mount something at are made on it. With
    `template` the VM goes on from the boot of one that was as it.
    """

    image: str
    spec: Callable[[Image], Spec]
    options: OptionsLCOW
    container_id: str
    volumes: Sequence[Volume] = ()
    pull: Pull = Pull.MISSING
    scratch_size: int = SCRATCH_SIZE
    network: NetworkWish | None = None
    require_kvm: bool = False
    require_jail: bool = False
    template: bool = True

    def __post_init__(self) -> None:
        """Refuse now what would be refused once the VM had booted.

        Raises:
            InvalidOptions: no image can have that name, or no disk that size.
        """
        parse(self.image)
        check_size(self.scratch_size, "scratch_size")


class Opened(msgspec.Struct, frozen=True):
    """A VM that runs, and a container in it that was created and not started yet, whose first process is `program`, in the folder `cwd`."""

    image: Image
    program: str
    cwd: str
    vm: UtilityVM
    container: Container


class Pulling(msgspec.Struct, frozen=True):
    """How an image is pulled: see `ImageStore.pull`."""

    access: Access | None = None
    platform: Platform | None = None
    tell: Tell = tell_nobody
    terminal: int | None = None


def new_name() -> str:
    """Return a name for a container that has none: twelve hexadecimal digits, as docker's."""
    return new_guid().replace("-", "")[:12].lower()


async def open_container(undo: AsyncExitStack, store: ImageStore, plan: Plan, pulling: Pulling | None = None) -> Opened:
    """Open what `plan` says; `undo` closes it: the VM, and the container goes with it, which takes no time of its own.

    Raises:
        NotFound: the image, of the platform that is wanted, is neither here nor, as far as `plan.pull` lets it be asked, in its registry.
        NotFound, HostError, Unsupported: a path of this host that is to be mounted is not there, or cannot be; told before the VM boots.
        UtilityVMError: as `create_lcow`, `UtilityVM.start`, `ImageStore.pull`, `UtilityVM.create_container` and what `plan.spec` raises.
    """
    for volume in plan.volumes:
        if volume.path:
            real_path(volume.path, volume.target)
    running: list[UtilityVM] = []
    found: list[tuple[Image, Spec]] = []

    async def vm() -> None:
        vms = VmsOfHost(plan.require_kvm, plan.require_jail)
        if plan.template:
            running.append(await BootTemplates(Layout.of_user(), vms).start(undo, plan.options, plan.network))
        else:
            running.append(await boot(undo, plan.options, plan.network, vms))

    async def image() -> None:
        with span("image.get", level=logging.DEBUG):
            held = await _held(undo, store, plan, pulling or Pulling())
        found.append((held, at_hand(plan.spec(held))))  # what is wrong with it is told before the VM has booted

    await together(vm(), image())
    ((held, spec),), (machine,) = found, running
    program, cwd = (spec.process.args[0], spec.process.cwd) if spec.process else ("", "")
    try:
        made = await machine.create_container(plan.container_id, spec, layers=held.layers, scratch_size_in_bytes=plan.scratch_size)
    except GuestError as error:
        told = in_words(error, program, cwd, f"image {held.name.short}")
        raise (error.during(f"image {held.name.short}") if told is error else told) from error
    return Opened(held, program, cwd, machine, made)


async def go_on(undo: AsyncExitStack, vm: UtilityVM, of: Opened) -> Opened:
    """Start a child of a VM that was forked, and take over the container that it has; `undo` closes the child.

    Raises:
        UtilityVMError: as `UtilityVM.start` and `UtilityVM.clone_container`.
    """
    await undo.enter_async_context(vm)
    await vm.start()
    return replace(of, vm=vm, container=await vm.clone_container(of.container.id))


def at_hand(spec: Spec) -> Spec:
    """Return `spec` with the real paths of what it has of this host: a link is what it leads to. See `real_path` for errors."""
    return replace(
        spec, mounts=[replace(one, source=real_path(one.source, one.destination)) if one.type == "bind" else one for one in spec.mounts]
    )


def real_path(path: str, target: str) -> str:
    """Return the real path of what is to be mounted at `target` of a container.

    Raises:
        NotFound: there is no such thing here.
        HostError: it may not be looked at or read, or its links lead in a circle.
        Unsupported: as `devices.share.check_sharable`.
    """
    try:
        seen = look(path)
        check_sharable(path, seen)
        if not os.access(seen.real, os.R_OK | (os.X_OK if seen.folder else 0)):
            raise HostError(f"{path}: may not be read by this user")
    except UtilityVMError as error:
        error.during(f"mount {target}")
        raise
    return seen.real


async def _held(undo: AsyncExitStack, store: ImageStore, plan: Plan, pulling: Pulling) -> Image:
    """Hold the image until the VM has ended, which maps its layers."""
    if plan.pull is Pull.ALWAYS:
        await _pull(store, plan.image, pulling)
    try:
        return _of_platform(await _hold(undo, store, plan.image), pulling.platform)
    except NotFound as missing:
        if plan.pull is not Pull.MISSING:
            raise
        try:
            await _pull(store, plan.image, pulling)
        except NotFound as error:
            error.hint = error.hint or missing.hint
            raise
        return _of_platform(await _hold(undo, store, plan.image), pulling.platform)


def _of_platform(image: Image, wanted: Platform | None) -> Image:
    """Return an image that is of the platform that is wanted, and of Linux.

    Raises:
        NotFound: it is of another.
        Unsupported: it is of another system, whose programs the guest does not run.
    """
    if wanted is not None and not wanted.covers(image.config.os, image.config.architecture, image.config.variant):
        raise NotFound(f"image {image.name.short}: is here for {image.config.platform}, and not for {wanted}")
    if image.config.os not in {"", "linux"}:
        raise Unsupported(f"image {image.name.short}: is for {image.config.platform}, and the guest is Linux")
    return image


async def _pull(store: ImageStore, name: str, how: Pulling) -> None:
    await store.pull(name, access=how.access, platform=how.platform, tell=how.tell, terminal=how.terminal)


async def _hold(undo: AsyncExitStack, store: ImageStore, name: str) -> Image:
    return await finish(asyncio.to_thread(undo.enter_context, store.hold(name)), within=None)
