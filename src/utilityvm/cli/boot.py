"""`uvm boot`: boot a utility VM, run one command in it, end with the command's exit code."""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from utilityvm.cli import attach, from_template, timeline
from utilityvm.cli.flags import add_option_flags
from utilityvm.cli.network import add_network_flags, wanted_network
from utilityvm.guest.spec import ProcessSpec, parameters
from utilityvm.kit.errors import InvalidOptions
from utilityvm.vm.compose import create_lcow
from utilityvm.vm.processes import DEFAULT_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from utilityvm.vm.uvm import UtilityVM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.usage = "%(prog)s [OPTION ...] [--] [COMMAND [ARG ...]]"
    parser.description = (
        "Boot a VM and run COMMAND in it. Ends with the command's exit code, 124 when --timeout was over, 125 for a failure of ours, 126 "
        "and 127 when the command cannot be run or found, 128+N by signal N. Without a command the VM runs until it powers off or Ctrl-C."
    )
    attach.add_process_flags(parser)
    add = parser.add_argument
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable for the command; without a value yours is passed on if there is one",
    )
    add("-w", "--workdir", default="", metavar="DIR", help="where the command starts (default /)")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="who runs the command, by names or numbers (default root)")
    from_template.add_argument(parser)
    add_network_flags(parser)
    attach.add_host_flags(parser)
    timeline.add_arguments(parser)
    add_option_flags(parser)
    add("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND [ARG ...]", help="the program and its arguments")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    with timeline.told(args):
        return asyncio.run(attach.interruptible(lambda _: _boot(args)))


async def _boot(args: argparse.Namespace) -> int:
    spec = _spec(args, os.environ)
    options = from_template.options_of(args, await from_template.template_of(args))
    if spec is not None and not options.use_guest_connection:
        raise InvalidOptions("a command needs the guest connection, and use_guest_connection is false", hint="leave one of them out")
    vm = await create_lcow(options, require_kvm=args.require_kvm, require_jail=args.require_jail, network=wanted_network(args))
    async with vm:
        await vm.start()
        try:
            async with asyncio.timeout(args.timeout):
                if spec is None:
                    return await _wait(vm)
                return await attach.outcome(_command(vm, spec), vm, spec.program, spec.cwd, "the guest")
        except TimeoutError:
            print(f"uvm: {spec.program if spec else f'vm {vm.id}'} still ran after {args.timeout:g} s", file=sys.stderr)
            return attach.TIMED_OUT


def _spec(args: argparse.Namespace, environment: "Mapping[str, str]") -> ProcessSpec | None:
    """Return what is to be run, None for nothing; refuse mistakes in it before a VM is booted for it. `environment` is ours."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        given = {"-i": args.interactive, "-t": args.tty, "-e": args.env, "-w": args.workdir, "-u": args.user}
        if idle := [flag for flag, value in given.items() if value]:
            raise InvalidOptions(f"{', '.join(idle)} without a command: there is nothing to apply it to")
        return None
    spec = ProcessSpec(
        argv=tuple(words),
        env=tuple(_variables(args, environment).items()),
        cwd=args.workdir or "/",
        user=args.user,
        stdin=args.interactive,
        console_size=attach.terminal_size(args),
    )
    parameters(spec)
    return spec


def _variables(args: argparse.Namespace, environment: "Mapping[str, str]") -> dict[str, str]:
    variables = dict(DEFAULT_ENVIRONMENT)
    named = ["TERM", *args.env] if args.tty else args.env
    for word in named:
        name, given, value = word.partition("=")
        if given or not name:  # a name that is empty is refused with the rest
            variables[name] = value
        elif name in environment:
            variables[name] = environment[name]
    return variables


async def _wait(vm: "UtilityVM") -> int:
    print(f"vm {vm.id} runs; Ctrl-C ends it", file=sys.stderr)
    status = await vm.wait()
    if vm.exit_error is not None:
        raise vm.exit_error
    print(f"vm {vm.id}: {status.how.value}", file=sys.stderr)
    return 0


async def _command(vm: "UtilityVM", spec: ProcessSpec) -> int:
    process = await vm.create_process(
        spec.argv, env=dict(spec.env), cwd=spec.cwd, user=spec.user, stdin=spec.stdin, console_size=spec.console_size
    )
    return await attach.attach(process, stdin=spec.stdin, terminal=spec.console_size is not None)
