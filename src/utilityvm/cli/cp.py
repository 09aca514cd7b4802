"""`uvm cp`: copy files out of an image, and out of and into a volume, by a VM: no file system of others is read on this host."""

import argparse
import asyncio
import sys
from typing import Final

import msgspec

from utilityvm.cli.attach import add_host_flags, attach
from utilityvm.containers.volumes import volume_file
from utilityvm.kit.errors import InvalidOptions, NotFound, Unsupported
from utilityvm.sandbox.opening import SHIPPED
from utilityvm.sandbox.sandbox import Sandbox
from utilityvm.store.layout import Layout

_VOLUME_AT: Final = "/volume"
_SHOWN: Final = 10  # of those that were left out
_VM: Final = {"memory_size_in_mb": 256, "processor_count": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.usage = "%(prog)s [OPTION ...] NAME:/PATH TARGET | SOURCE VOLUME:/PATH"
    parser.description = (
        "Copy a file, or a folder with all that is in it, between this host and an image or a volume, as docker cp does: into TARGET if "
        "that is a folder, else as TARGET; NAME:/PATH/. stands for what is in a folder. NAME is a volume if there is one of this name, "
        "else an image; images can only be read. Links are copied as links, owners stay behind. - in the place of a path of this host is a "
        "tar archive: what is on standard input is unpacked into a folder, what is written to standard output is as the guest has it."
    )
    add_host_flags(parser)
    parser.add_argument("source", metavar="SOURCE", help="a path of this host, - or NAME:/PATH")
    parser.add_argument("target", metavar="TARGET", help="a path of this host, - or VOLUME:/PATH")
    parser.set_defaults(run=_run)


class There(msgspec.Struct, frozen=True):
    """A path in a volume or in an image."""

    name: str
    path: str
    is_volume: bool

    def sandbox(self, *, writes: bool, require_kvm: bool, require_jail: bool) -> Sandbox:
        """Return the sandbox in which the path is at `place`."""
        volumes = [f"{self.name}:{_VOLUME_AT}{'' if writes else ':ro'}"] * self.is_volume
        image = SHIPPED if self.is_volume else self.name
        return Sandbox(image, user="0", read_only=True, volumes=volumes, options=_VM, require_kvm=require_kvm, require_jail=require_jail)

    @property
    def place(self) -> str:
        """The path in the sandbox."""
        return f"{_VOLUME_AT}{self.path}" if self.is_volume else self.path


def _run(args: argparse.Namespace) -> int:
    return asyncio.run(_copy(args, Layout.of_user()))


async def _copy(args: argparse.Namespace, layout: Layout) -> int:
    source, target = there(args.source, layout), there(args.target, layout)
    if source is not None and target is not None:
        raise Unsupported("one side of a copy is a path of this host", hint="copy to a folder first, and from there")
    required = {"require_kvm": args.require_kvm, "require_jail": args.require_jail}
    if source is not None:
        if (to_pipe := args.target == "-") and sys.stdout.isatty():
            raise InvalidOptions("standard output is a terminal, which wants no archive", hint=f"uvm cp {args.source} - > FILE")
        async with source.sandbox(writes=False, **required) as box:
            if to_pipe:
                return await attach(await box.files.tar_out(source.place), stdin=False, terminal=False)
            copied = await box.files.copy_out(source.place, args.target)
        for name in copied.left_out[:_SHOWN]:
            print(f"uvm: left out, since it is a device or a pipe: {name}", file=sys.stderr)
        if (more := len(copied.left_out) - _SHOWN) > 0:
            print(f"uvm: and {more} more of them", file=sys.stderr)
    elif target is not None:
        if not target.is_volume:
            hint = f"uvm run -v {target.name}:/somewhere {SHIPPED} true makes a volume"
            raise NotFound(f"no volume is called {target.name}; an image can only be read", hint=hint)
        if (from_pipe := args.source == "-") and sys.stdin.isatty():
            raise InvalidOptions("standard input is a terminal, and a tar archive is wanted", hint=f"uvm cp - {args.target} < FILE")
        async with target.sandbox(writes=True, **required) as box:
            if from_pipe:
                return await attach(await box.files.tar_in(target.place), stdin=True, terminal=False)
            await box.files.copy_in(args.source, target.place)
    else:
        raise InvalidOptions("neither side is in an image or a volume", hint="uvm cp busybox:/etc/passwd .")
    return 0


def there(word: str, layout: Layout) -> There | None:
    """Return what a word means in an image or a volume; None when it is a path of this host."""
    if word[:1] in {"/", "."}:
        return None
    name, found, path = word.partition(":/")
    if not found:
        name, found, path = word.rpartition(":")  # a path from the root, as docker has it
    if not found or not name:
        return None
    try:
        is_volume = volume_file(layout, name).exists()
    except InvalidOptions:  # a volume cannot be called so, an image can
        is_volume = False
    return There(name, f"/{path}", is_volume)
