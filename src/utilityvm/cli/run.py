"""`uvm run`: run a command in a container of an image, in a VM of its own, and end with the command's exit code."""

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from utilityvm.cli import attach, from_template, timeline
from utilityvm.cli.flags import add_option_flags
from utilityvm.cli.network import add_network_flags, wanted_network
from utilityvm.cli.progress import Bar
from utilityvm.cli.registries import access, add_registry_flags
from utilityvm.cli.wishes import add_container_flags, spelled, wish_of
from utilityvm.containers import wish
from utilityvm.containers.scratch import SCRATCH_SIZE
from utilityvm.containers.spec import spec_of, vm_size
from utilityvm.images.store import ImageStore
from utilityvm.kit.errors import GuestError, InvalidOptions
from utilityvm.sandbox.opening import Plan, Pull, Pulling, new_name, open_container

if TYPE_CHECKING:
    from utilityvm.containers.container import Container
    from utilityvm.images.image import Image
    from utilityvm.templates.template import Template
    from utilityvm.wire.oci import Spec

_KILLED: Final = 137  # 128 + SIGKILL, which is how the kernel ends who has used up the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.usage = "%(prog)s [OPTION ...] IMAGE [COMMAND [ARG ...]]"
    parser.description = (
        "Run COMMAND, or what IMAGE says, in a container of IMAGE in a VM of its own, of which nothing is left afterwards. Ends with the "
        "command's exit code, 124 when --timeout was over, 125 for a failure of ours, 126 and 127 when the command cannot be run or found, "
        "128+N by signal N. Signals are passed on; what does not end of SIGTERM within 10 s, or of three Ctrl-C, is ended with its VM."
    )
    attach.add_process_flags(parser)
    add = parser.add_argument
    add("--rm", action="store_true", help="remove the container afterwards, which is always done: so that docker's command lines run")
    add("--pull", choices=[policy.value for policy in Pull], default=Pull.MISSING.value, help="when to bring the image from its registry")
    add("--no-template", action="store_true", help="boot the VM, which otherwise goes on from the boot of an earlier one that was as it")
    add(
        "--scratch-size",
        type=spelled(wish.parse_size),
        metavar="SIZE",
        help="most that the container can write to its root, as 20g (default 10g); it takes of the host what is written",
    )
    add_container_flags(parser)
    from_template.add_argument(parser)
    add_network_flags(parser)
    attach.add_host_flags(parser)
    timeline.add_arguments(parser)
    add_registry_flags(parser)
    add_option_flags(parser, short=False)
    # One argument for all of them: of two, argparse would give the first the "--" that is the command's.
    add("words", nargs=argparse.REMAINDER, metavar="IMAGE [COMMAND [ARG ...]]", help="the image, and what is run in place of its command")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    with timeline.told(args):
        return asyncio.run(attach.interruptible(partial(_container, args)))


async def _container(args: argparse.Namespace, signals: attach.Signals) -> int:
    plan = plan_of(args, await from_template.template_of(args))
    bar = Bar(quiet=not sys.stderr.isatty())
    pulling = Pulling(access(args), args.platform, bar, 2 if os.isatty(2) else None)
    async with AsyncExitStack() as undo:
        try:
            opened = await open_container(undo, ImageStore.of_user(), plan, pulling)
        except GuestError as error:
            return attach.not_started(error)
        finally:
            bar.close()
        try:
            async with asyncio.timeout(args.timeout):
                work = _command(opened.container, args, signals)
                return await attach.outcome(work, opened.vm, opened.program, opened.cwd, f"image {opened.image.name.short}")
        except TimeoutError:
            print(f"uvm: {plan.image}: still ran after {args.timeout:g} s", file=sys.stderr)
            return attach.TIMED_OUT


def plan_of(args: argparse.Namespace, template: "Template | None" = None) -> Plan:
    """Return what the flags want, in a VM that goes on from `template` if there is one; refuse mistakes in them before anything is made.

    Raises:
        UtilityVMError: they contradict each other or themselves, or a file that they name cannot be read.
    """
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        raise InvalidOptions("no image: say which, e.g. uvm run busybox uname -a")
    wanted = wish_of(args, words[1:], os.environ)
    network = wanted_network(args)
    name = args.name or new_name()
    if template is not None and args.no_template:
        raise InvalidOptions("--from and --no-template contradict each other")
    options = from_template.options_of(args, template, vm_id=args.name, least=vm_size(wanted))
    wanted = replace(wanted, vm_network=network is not None or bool(options.network_config_proxy))
    if not options.use_guest_connection:
        raise InvalidOptions("a container needs the guest connection, and use_guest_connection is false")

    def spec(image: "Image") -> "Spec":
        return spec_of(image.config, wanted, name)

    return Plan(
        image=words[0],
        spec=spec,
        options=options,
        container_id=name,
        volumes=wanted.volumes,
        pull=Pull(args.pull),
        scratch_size=SCRATCH_SIZE if args.scratch_size is None else args.scratch_size,
        network=network,
        require_kvm=args.require_kvm,
        require_jail=args.require_jail,
        template=not args.no_template,
    )


async def _command(container: "Container", args: argparse.Namespace, signals: attach.Signals) -> int:
    process = await container.start(stdin=args.interactive)
    async with signals.passed_on(process):
        code = await attach.attach(process, stdin=args.interactive, terminal=args.tty)
    if code == _KILLED:
        await _tell_of_memory(container)
    return code


async def _tell_of_memory(container: "Container") -> None:
    end = await container.wait(timeout=attach.GRACE)
    if end.oom_killed:
        print("uvm: it was killed because its memory had run out; -m sets how much it may use", file=sys.stderr)
