"""Flags of a container, with docker's names and meanings, and what is wanted by them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from utilityvm.cli import attach
from utilityvm.containers import wish
from utilityvm.containers.spec import check_wish
from utilityvm.containers.wish import Wish
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound

T = TypeVar("T")

CONTAINER_GROUP = "options of the container"


class spelled(msgspec.Struct, Generic[T], frozen=True):  # noqa: N801 (used as a function)
    """Takes a flag's value by one of the parsers of wishes."""

    parse: Callable[[str], T]

    def __call__(self, text: str) -> T:
        """Read a word.

        Raises:
            ArgumentTypeError: it cannot be read; with what to do.
        """
        try:
            return self.parse(text)
        except InvalidOptions as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise argparse.ArgumentTypeError(error.message + hint) from error


def add_container_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags of what a container is to be."""
    add = parser.add_argument_group(CONTAINER_GROUP, "As docker's, unless it says otherwise.").add_argument
    _add_process(add)
    _add_mounts(add)
    _add_limits(add)


def _add_process(add: Callable[..., object]) -> None:
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable; without a value yours is passed on, and the image's taken away if you have none",
    )
    add("--env-file", action="append", default=[], metavar="FILE", help="set the variables of a file, a NAME[=VALUE] a line")
    add("-w", "--workdir", default="", metavar="PATH", help="where the command starts (default: the image's)")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="who runs the command, by the image's names or by numbers")
    add("--entrypoint", metavar="PROGRAM", help="the program instead of the image's entrypoint and command; empty: no entrypoint")
    add("--name", type=spelled(_name), metavar="NAME", help="name of the container and of its VM (default: a random one)")
    add("--hostname", type=spelled(wish.parse_hostname), metavar="NAME", help="its host name (default: its name)")


def _add_mounts(add: Callable[..., object]) -> None:
    add(
        "-v",
        "--volume",
        action="append",
        default=[],
        type=spelled(wish.parse_volume),
        metavar="SOURCE:PATH[:OPTIONS]",
        help="mount a path of the host (it has a slash), or a named volume, made when there is none; OPTIONS as ro,size=20g,nocopy",
    )
    add(
        "--mount",
        action="append",
        default=[],
        type=spelled(wish.parse_mount),
        metavar="type=TYPE,source=SOURCE,target=PATH",
        help="the same in words: TYPE is bind, volume or tmpfs; readonly, volume-nocopy, tmpfs-size=SIZE, tmpfs-mode=MODE",
    )
    add(
        "--tmpfs",
        action="append",
        default=[],
        type=spelled(wish.parse_tmpfs),
        metavar="PATH[:OPTIONS]",
        help="mount a file system in memory at PATH; OPTIONS as size=64m,mode=1777,exec",
    )
    add("--read-only", action="store_true", help="let nothing be written to the root file system")


def _add_limits(add: Callable[..., object]) -> None:
    add(
        "-m",
        "--memory",
        type=spelled(wish.parse_memory),
        metavar="SIZE",
        help="memory that the container may use, as 512m; the VM gets that and what its own kernel needs",
    )
    add(
        "--cpus",
        type=spelled(wish.parse_cpus),
        metavar="NUMBER",
        help="processors that the container may use, as 1.5; the VM gets as many, rounded up",
    )
    add("--pids-limit", type=spelled(wish.parse_pids), metavar="NUMBER", help="processes and threads that it may have at once (-1: any)")
    add("--shm-size", type=spelled(wish.parse_size), metavar="SIZE", help="size of /dev/shm (default 64m)")
    add("--cap-add", action="append", default=[], metavar="CAPABILITY", help="give a capability, as NET_ADMIN, or ALL")
    add("--cap-drop", action="append", default=[], metavar="CAPABILITY", help="take a capability away, or ALL")
    add("--ulimit", action="append", default=[], type=spelled(wish.parse_ulimit), metavar="NAME=SOFT[:HARD]", help="limit each process")
    add(
        "--sysctl",
        action="append",
        default=[],
        type=spelled(wish.parse_sysctl),
        metavar="NAME=VALUE",
        help="set a parameter of the kernel that is the container's own",
    )


def wish_of(args: argparse.Namespace, command: Sequence[str], environment: Mapping[str, str]) -> Wish:
    """Return what the flags want, with what is run in place of the image's command; `environment` is ours.

    Raises:
        InvalidOptions: they contradict each other, or what a file says makes no sense.
        NotFound, HostError: a file of variables is not there, or cannot be read.
    """
    variables: list[tuple[str, str | None]] = []
    for file in args.env_file:
        variables += wish.parse_env_file(_read(file), file, environment)
    variables += [wish.parse_env(word, environment) for word in args.env]
    wanted = Wish(
        args=tuple(command),
        entrypoint=None if args.entrypoint is None else (args.entrypoint,) * bool(args.entrypoint),
        env=tuple(variables),
        user=args.user,
        cwd=args.workdir,
        console_size=attach.terminal_size(args),
        read_only=args.read_only,
        volumes=(*args.volume, *(one for one in args.mount if isinstance(one, wish.Volume))),
        tmpfs=(*args.tmpfs, *(one for one in args.mount if isinstance(one, wish.Tmpfs))),
        hostname=args.hostname or "",
        memory=args.memory,
        cpus=args.cpus,
        pids=args.pids_limit,
        shm_size=args.shm_size,
        cap_add=tuple(args.cap_add),
        cap_drop=tuple(args.cap_drop),
        ulimits=tuple(args.ulimit),
        sysctls=tuple(args.sysctl),
    )
    check_wish(wanted)
    return wanted


def _name(text: str) -> str:
    return wish.parse_name(text, "a container")


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"--env-file: {file}: no such file") from error
    except UnicodeDecodeError as error:
        raise InvalidOptions(f"--env-file: {file} is not UTF-8") from error
    except OSError as error:
        raise HostError(f"--env-file: {file} cannot be read: {error.strerror}") from error
