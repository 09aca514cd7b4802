"""The reference page and the manual page of `uvm`, from the description of its command line."""

import argparse
from collections.abc import Iterator
from typing import Final

from utilityvm import __version__
from utilityvm.cli.describe import Argument, Command, describe
from utilityvm.cli.flags import OPTIONS_GROUP, add_option_flags
from utilityvm.cli.main import whole_parser
from utilityvm.kit import errors
from utilityvm.store.layout import Layout

_HEAD: Final = """\
# The command line

<!-- written by tools/reference.py: change src/utilityvm/cli instead -->

`uvm --help` and `uvm VERB --help` say the same. `uvm completion` makes your shell complete it.

"""

ENVIRONMENT: Final = {
    "UVM_ACCEL": "kvm or tcg: what runs the guest's instructions, whatever a trial of KVM says.",
    "UVM_QEMU": "The program of QEMU, instead of qemu-system-x86_64 on the PATH.",
}

_FILES: Final = {
    str(Layout.of_user(0).boot_files): "The boot files of VMs that root starts; others: $XDG_STATE_HOME/utilityvm/boot.",
    str(Layout.of_user(0).cache): "What can be fetched or found out again; others: $XDG_CACHE_HOME/utilityvm.",
}


def page() -> str:
    """Return the reference page, in Markdown."""
    sections = [_section(command) for command in describe(whole_parser()).walk() if not _only_leads_on(command)]
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in _exit_codes())
    return f"{_HEAD}{''.join(sections)}## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}"


def _only_leads_on(command: Command) -> bool:
    return bool(command.commands) and len(command.path) > 1


def _section(command: Command) -> str:
    text = f"## {' '.join(command.path)}\n\n    {_usage(command)}\n\n{_escaped(command.description)}\n\n"
    rows = [f"| {_cell(argument)} | {_escaped(argument.meaning)} |" for argument in _own(command)]
    rows += [f"| `{verb.path[-1]}` | {_escaped(verb.purpose)} |" for verb in command.commands]
    text += "| | |\n|---|---|\n" + "\n".join(rows) + "\n\n" if rows else ""
    if _takes_options(command):
        text += "It also takes a flag for each [option of the VM](options.md), and they win over the file of `--options`.\n\n"
    return text


def _usage(command: Command) -> str:
    words = [*command.path, *(["[OPTION ...]"] if command.flags else []), *map(_positional, command.positionals)]
    return " ".join([*words, *(["VERB ..."] if command.commands else [])])


def _positional(argument: Argument) -> str:
    return f"[{argument.value}]" if argument.rest else argument.value


def _own(command: Command) -> list[Argument]:
    """Return the arguments without those that are told elsewhere: options have a page of their own, every verb has --help."""
    listed = [argument for argument in command.arguments if argument.group != OPTIONS_GROUP or argument.names == ("--options",)]
    return [argument for argument in listed if not command.path[1:] or "--help" not in argument.names]


def _takes_options(command: Command) -> bool:
    return any(argument.group == OPTIONS_GROUP for argument in command.arguments)


def _cell(argument: Argument) -> str:
    names = ", ".join(argument.names)
    return f"`{' '.join(filter(None, [names, argument.value]))}`".replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _exit_codes() -> list[tuple[str, str]]:
    """Return the codes of the command in order, with what they mean: said by the errors' own classes."""
    meanings: dict[int, list[str]] = {}
    for kind in errors.UtilityVMError.__subclasses__():
        meanings.setdefault(errors.EXIT_CODES[kind.kind], []).append((kind.__doc__ or "").partition("\n")[0])
    meanings[2].append("Or the command line is not understood.")
    ours = [(str(code), " ".join(said)) for code, said in sorted(meanings.items())]
    return [
        ("0", "Done. `boot` ends with the code of its command, whatever it is."),
        *ours,
        ("125", "`boot`: a failure of ours, instead of the codes above."),
        ("126, 127", "`boot`: the command cannot be run, or is not there."),
        ("128 + N", "`boot`: signal N ended the command. Every verb: 130 after Ctrl-C; early, its signal ends it, a shell's 130."),
    ]


def manual() -> str:
    """Return the manual page uvm(1), in roff."""
    top = describe(whole_parser())
    return "\n".join([*_opening(top), *_verbs(top), *_options(), *_tables(), *_closing()]) + "\n"


def _opening(top: Command) -> Iterator[str]:
    yield '.\\" written by tools/reference.py: change src/utilityvm/cli instead'
    yield f'.TH UVM 1 "" "utilityvm {__version__}" "User Commands"'
    yield from (".SH NAME", "uvm \\- run a process in a small virtual machine of its own")
    yield ".SH SYNOPSIS"
    yield from _broken(_bold(_usage(command)) for command in top.walk() if command.path[1:] and not command.commands)
    yield from (".SH DESCRIPTION", _roff(top.description))
    yield from (line for flag in top.flags for line in _entry(flag))


def _verbs(top: Command) -> Iterator[str]:
    yield ".SH VERBS"
    for command in top.walk():
        if not command.path[1:] or command.commands:
            continue
        yield from (f".SS {_roff(' '.join(command.path[1:]))}", _roff(command.description))
        yield from (line for argument in _own(command) for line in _entry(argument))
        if _takes_options(command):
            yield from (".PP", "It also takes every option of the VM, see below.")


def _options() -> Iterator[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_option_flags(parser)
    yield ".SH OPTIONS OF THE VM"
    yield from (line for argument in describe(parser).arguments for line in _entry(argument))


def _tables() -> Iterator[str]:
    for head, entries in (("EXIT STATUS", dict(_exit_codes())), ("ENVIRONMENT", ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {head}"
        for name, meaning in entries.items():
            yield from (".TP", _bold(name), _roff(meaning.replace("`", "")))


def _closing() -> Iterator[str]:
    yield from (".SH EXAMPLES", ".nf", _roff("uvm boot --memory 256 -- uname -a"))
    yield from (_roff("uvm document lcow --options vm.toml"), ".fi", ".SH SEE ALSO", ".BR qemu-system-x86_64 (1)")


def _entry(argument: Argument) -> tuple[str, str, str]:
    names = ", ".join(map(_bold, argument.names))
    return ".TP", " ".join(filter(None, [names, f"\\fI{_roff(argument.value)}\\fR" if argument.value else ""])), _roff(argument.meaning)


def _broken(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield from (line, ".br")


def _bold(text: str) -> str:
    return f"\\fB{_roff(text)}\\fR"


def _roff(text: str) -> str:
    """Write text so that roff reads it as text: a line is no request, a hyphen can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
