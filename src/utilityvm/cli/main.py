"""`uvm`: finds the verb, prints errors, decides the exit code. Loads nothing that the verb does not need."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see the package's own module
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final, TextIO

    from utilityvm.kit.errors import UtilityVMError

_MEANT: Final = 3  # flags that are offered for a beginning of theirs
_OURS: Final = 125  # the failure is ours, not that of the program which ran in the guest
_INTERRUPTED: Final = 130  # 128 + SIGINT

_VERBS: Final = {
    "run": "run a command in a container of an image, in a VM of its own",
    "boot": "boot a VM and run a command in it",
    "doctor": "say what this host can do, and why not",
    "boot-files": "build or show the guest's kernel and initial RAM disk",
    "options": "print every option with its default and meaning",
    "document": "print the HCS document of options, without a VM",
    "template": "make, list, show, remove, export or import VMs that others go on from",
    "pull": "bring an image from a registry",
    "import": "make an image of an archive or a folder",
    "export": "write an image as an archive",
    "images": "print the images that are here",
    "inspect": "print all that is known of images",
    "rmi": "remove images",
    "cp": "copy files out of images, and out of and into volumes",
    "prune": "remove what is nobody's, and images used longest ago",
    "df": "print what images and volumes take of the disk",
    "volume": "list or remove named volumes",
    "stats": "print what this user's VMs use of the host",
    "cpugroup": "make, list or remove groups of VMs that share processors of the host",
    "ncproxy": "serve VMs of this host that have their networks set up by a proxy",
    "completion": "print a script that completes uvm's command line in a shell",
}
"""Each verb is the module of its name, or the one of `_MODULES`; it has `add_arguments(parser)`, which sets the default `run`."""

_MODULES: Final = {"boot-files": "boot_files", "import": "import_"}
"""The modules of verbs whose names are none."""

_OF_IMAGES: Final = frozenset({"pull", "import", "export", "images", "inspect", "rmi", "prune", "df"})

_RUNNING: Final = frozenset({"run", "boot"})
"""Verbs that end as a program in a guest did; a failure of ours must not look like the program's."""

_TIDYING: Final = frozenset({"run", "boot", "cp", "boot-files", "doctor", "pull", "import", "export", "prune", "template", "ncproxy"})
"""Verbs that have something to tidy up when Ctrl-C ends them."""


_UNIX_ONLY: Final = frozenset({"run", "boot", "cp", "boot-files", "completion", "volume", "template", "ncproxy", *_OF_IMAGES})
"""Verbs that need a host of Unix: its terminals, its packages, its shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_missing()
    words = sys.argv[1:] if argv is None else list(argv)
    verb = next((word for word in words if not word.startswith("-")), "")
    try:
        code = _version() if words == ["--version"] else _run(words, verb, own_process=argv is None)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read it knows
        _discard(sys.stdout)
    except OSError as error:
        if error.filename is not None or not _is_of_writing(error):
            raise
        try:
            print(f"uvm: output cannot be written: {error.strerror}", file=sys.stderr)
        except OSError:  # it is our standard error that cannot
            _discard(sys.stderr)
        _discard(sys.stdout)
    else:
        return code
    return _OURS if verb in _RUNNING else 1


def _version() -> int:
    from utilityvm import __version__

    print(f"uvm {__version__}")
    return 0


def _run(words: Sequence[str], verb: str, *, own_process: bool) -> int:
    from utilityvm.kit.errors import EXIT_CODES, Unsupported, UtilityVMError

    let_go = _ended_by_ctrl_c()
    try:
        if sys.platform == "win32" and verb in _UNIX_ONLY:
            raise Unsupported(f"uvm {verb}: not on Windows", hint="uvm doctor, options and document are, and the library")
        args = (_lasting_parser(verb) if own_process else _parser(verb)).parse_args(words)
        _configure_logging(args.verbose)
        if verb in _TIDYING:
            let_go()
        code: int = args.run(args)
    except SystemExit as said:  # argparse has printed the help, or what is wrong
        return _OURS if said.code and verb in _RUNNING else int(said.code or 0)
    except UtilityVMError as error:
        complain(error)
        return _OURS if verb in _RUNNING else EXIT_CODES[error.kind]
    finally:
        let_go()
    return code


def _lasting_parser(verb: str) -> argparse.ArgumentParser:
    """Build the verb's parser in a process of our own: what its modules define lasts as long as that, and is not searched for garbage."""
    import gc

    gc.disable()
    try:
        return _parser(verb)
    finally:
        gc.freeze()
        gc.enable()


def whole_parser() -> argparse.ArgumentParser:
    """Build the parser with the command lines of all verbs; for what is generated of them."""
    return _parser(*_VERBS)


def _parser(*chosen: str) -> argparse.ArgumentParser:
    """Build the parser; only the chosen verb's module is loaded, since asyncio and msgspec cost more than all else."""
    import argparse
    from importlib import import_module

    from utilityvm import __version__

    class Verb(argparse.ArgumentParser):
        """A verb's own parser, which refuses what it does not know itself: left to `uvm`'s, the usage that is shown is not the verb's.

        No flag has a shorter form: one that is added later would take it away.
        """

        def __init__(self, **how):  # type: ignore[no-untyped-def]  # noqa: ANN003,ANN204  (as argparse has it)
            super().__init__(allow_abbrev=False, **how)

        def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: ANN001,ANN202  (as argparse has it)
            known, unknown = super().parse_known_args(args, namespace)
            if unknown:
                self.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown[0], self._option_string_actions)}")
            return known, unknown

    parser = argparse.ArgumentParser(prog="uvm", description="Utility VMs: small virtual machines that hold processes.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"uvm {__version__}", help="print the version and end")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say what happens; twice: every step and the guest's debug log")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Verb)
    for name, purpose in _VERBS.items():
        verb = verbs.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if name in chosen:
            import_module(f"utilityvm.cli.{_MODULES.get(name, name)}").add_arguments(verb)
    return parser


_DETACHED: Final = "a VM ends with the command that it was started by: let that run in the background, by & or a service"
_DEVICES: Final = "a VM is given a device of the host by --assigned-devices"
_INSTEAD: Final = {
    "-d": _DETACHED,
    "--detach": _DETACHED,
    "--restart": _DETACHED,
    "--device": _DEVICES,
    "--gpus": _DEVICES,
    "--privileged": "--cap-add ALL gives all rights over the guest's kernel, which is the container's own",
    "--security-opt": "the boundary round a container is its VM: there is no profile to be changed",
}
"""Flags of `docker run` that are not here, and why, or what is instead."""


def _meant(word: str, known: Iterable[str]) -> str:
    """Return a question for the flag that `word` may have been meant as, or what is instead of docker's; ``""`` when there is none."""
    from difflib import get_close_matches

    flag = word.partition("=")[0]
    if flag in _INSTEAD:
        return f" ({_INSTEAD[flag]})"
    if not flag.startswith("--"):
        return ""
    like = [name for name in known if name.startswith(flag)][:_MEANT] or get_close_matches(flag, known, n=1, cutoff=0.75)
    return f" (did you mean {' or '.join(like)}?)" if like else ""


def _configure_logging(verbose: int) -> None:
    import logging

    class ForPeople(logging.Formatter):
        """An event's sentence where it has one, otherwise its name and fields."""

        def format(self, record: logging.LogRecord) -> str:
            level = record.levelname.lower()
            if record.name == "utilityvm.guest":  # its words must not look like ours
                return f"uvm: {level}: guest: {record.getMessage()}"
            fields = dict(getattr(record, "fields", {}))
            if (sentence := fields.pop("message", None)) is None:
                return f"uvm: {level}: {record.getMessage()}"
            rest = " ".join(f"{name}={value}" for name, value in fields.items() if name != "vm")
            return f"uvm: {level}: {sentence} {rest}".rstrip()

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ForPeople())
    logging.getLogger().addHandler(handler)
    logging.getLogger("utilityvm").setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))


def _ended_by_ctrl_c() -> Callable[[], None]:
    """Let Ctrl-C end us without a word of Python's until what is returned is called: msgspec crashes when it is interrupted."""
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # somebody ignores it, or minds it already
        return lambda: None
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def let_go() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return let_go


def _open_missing() -> None:
    """Open on nothing what was closed when we were started.

    Or ``print`` to a standard error that is None writes to standard output, and the next socket gets the number, and what is written to it.
    """
    import os

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order each gets its own number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 (for as long as we live)


def _is_of_writing(error: OSError) -> bool:
    import errno

    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def _discard(stream: TextIO) -> None:
    """What we say cannot be written: let Python not stumble over it once more when it ends."""
    import os

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def complain(error: UtilityVMError) -> None:
    """Print an error for people."""
    from utilityvm.kit.errors import InvalidOptions

    print(f"uvm: {error.message}", file=sys.stderr)
    if isinstance(error, InvalidOptions):
        for problem in error.problems[1:]:
            print(f"uvm: {problem.path}: {problem.message}", file=sys.stderr)
    if error.hint:
        print(f"uvm: hint: {error.hint}", file=sys.stderr)
