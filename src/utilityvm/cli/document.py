"""`uvm document`: the HCS document that options become, without a VM: nothing is tried, started or written."""

import argparse
import os
import sys
from contextlib import suppress
from json import dumps
from typing import Final

import msgspec

from utilityvm.cli.flags import add_option_flags, given_file, given_options
from utilityvm.cli.guests import GUESTS, QEMU, Guest, Wish, add_guests
from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.schema import json
from utilityvm.schema.document import ComputeSystem

_TAKEN: Final = {
    True: "The boot files are taken to be there: only the defaults look which of them are.",
    False: "The base layer is taken to have the utility VM, and its scratch to be made.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    add_guests(parser, _describe)


def _describe(parser: argparse.ArgumentParser, guest: Guest) -> None:
    parser.usage = "%(prog)s [OPTION ...]"
    parser.description = (
        f"Print the HCS document of {guest.meaning}, as the options make it. Nothing is tried or started; neither QEMU nor root is needed. "
        f"{_TAKEN[QEMU in guest.platforms]} Whether a driver carries all of the document out is found out when a VM is created."
    )
    first = guest.platforms[0]
    parser.add_argument("--platform", choices=guest.platforms, default=first, help=f"who is to run the VM (default: {first})")
    if QEMU in guest.platforms:
        parser.add_argument(
            "--accel",
            choices=["kvm", "tcg"],
            help="who runs the guest's instructions on QEMU; tcg (software) changes the kernel's arguments (default: UVM_ACCEL, else kvm)",
        )
    parser.add_argument(
        "--host-processors", type=_number, metavar="N", help="processors of the host, of which a VM gets no more (default: as this host)"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of documents instead, whatever the options")
    parser.add_argument("--compact", action="store_true", help="print one line, to the byte what a driver is given")
    add_option_flags(parser, guest.options)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    guest = GUESTS[args.guest]
    if args.schema:
        _write(dumps(json.json_schema(ComputeSystem), indent=2))
        return 0
    wish = Wish(
        given=given_options(args, guest.options),
        file=given_file(args),
        platform=args.platform,
        emulated=_emulated(args),
        processors=args.host_processors or _processors(),
    )
    text = json.encode(guest.document(wish))
    _write(text if args.compact else msgspec.json.format(text, indent=2))
    return 0


def _processors() -> int:
    if sys.platform == "win32":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _write(text: str) -> None:
    """JSON is UTF-8, whatever the terminal's character set."""
    if sys.stdout is not None:  # which it is when it was closed
        sys.stdout.buffer.write(f"{text}\n".encode())


def _emulated(args: argparse.Namespace) -> bool:
    if args.platform != QEMU:
        if getattr(args, "accel", None):
            raise InvalidOptions(f"--accel is for --platform {QEMU}: on {args.platform} nothing depends on it")
        return False
    accel = args.accel or os.environ.get("UVM_ACCEL") or "kvm"
    if accel not in {"kvm", "tcg"}:
        message = f"UVM_ACCEL={accel}: must be kvm or tcg"
        raise InvalidOptions(message, problems=[Problem("$UVM_ACCEL", "accel", message)])
    return bool(accel == "tcg")


def _number(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) > 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
