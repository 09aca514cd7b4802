"""Write docs/reference/options.md from the declarations of the options. Run from anywhere: ``.venv/bin/python tools/reference.py``."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect

from utilityvm.cli.flags import add_option_flags
from utilityvm.compute.qemu.lower import check
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.options.declare import descriptions, go_names
from utilityvm.options.defaults import default_processor_count
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.paths import PathFlavour
from utilityvm.options.rules import BOUNDS, VERIFY, refuse_not_built, verify_bounds
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.lcow import boot_file_paths, plan_lcow

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reference" / "options.md"

OF_THE_HOST: Final = {
    "owner": "the program's name",
    "processor_count": f"{default_processor_count(2)}; {default_processor_count(1)} on a host with one processor",
    "boot_files_path": "`LinuxBootFiles` beside the program, else the folder that `uvm boot-files show` names",
    "kernel_file": "`vmlinux` where the folder has one, else `kernel`",
    "root_fs_file": "`rootfs.vhd` where the folder has one, else `initrd.img`",
    "preferred_root_fs_type": "1 where the folder has `rootfs.vhd`, else 0",
    "exec_command_line": "`/bin/gcs -v4 -log-format json -loglevel LEVEL`, with the level of the logger `utilityvm`",
}
"""Defaults that `default_options_lcow` chooses by what it finds, instead of those in the declaration."""

_HEAD: Final = """\
# Options of a Linux VM

<!-- written by tools/reference.py: change src/utilityvm/options instead -->

Fields of `OptionsLCOW`; `default_options_lcow(memory_size_in_mb=512)` sets some and leaves the rest at their defaults.
`uvm boot` has a flag for each that one word can give. The Go name is hcsshim's.
An option that the QEMU driver does not carry out yet is refused by name when the VM is created, never ignored.

"""


def page() -> str:
    """Return the whole page."""
    sections = "".join(_section(field) for field in msgspec.structs.fields(OptionsLCOW))
    return f"{_HEAD}{sections}{_rules()}"


def _section(field: msgspec.structs.FieldInfo) -> str:
    go, flags = go_names(OptionsLCOW).get(field.name, ""), _flags().get(field.name, "")
    lines = [f"- Type: {_type(field)}. Default: {_default(field)}."]
    lines += [f"- Flag: {flags}"] if flags else []
    lines += [f"- Go name: `{go}`"] if go else []
    lines += [] if _carried_out(field) else ["- Refused on QEMU today."]
    return f"## {field.name}\n\n{descriptions(OptionsLCOW)[field.name]}\n\n" + "\n".join(lines) + "\n\n"


def _flags() -> dict[str, str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_option_flags(parser)
    return {action.dest: ", ".join(f"`{name}`" for name in action.option_strings) for action in parser._actions}  # noqa: SLF001


def _type(field: msgspec.structs.FieldInfo) -> str:
    kind = inspect.type_info(field.type)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    names = {inspect.BoolType: "true or false", inspect.IntType: "integer", inspect.StrType: "text"}
    return names.get(type(kind), "`TemplateConfig`")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.name in OF_THE_HOST:
        return OF_THE_HOST[field.name]
    value = field.default
    if value is None or value == "":
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(int(value))


def _carried_out(field: msgspec.structs.FieldInfo) -> bool:
    """Whether some other value than the default becomes a machine on QEMU: asked of the code that creates one."""
    return any(_becomes_a_machine(msgspec.structs.replace(OptionsLCOW(), **{field.name: value})) for value in _other_values(field))


def _other_values(field: msgspec.structs.FieldInfo) -> Iterator[object]:
    match field.default:
        case bool(value):
            yield not value
        case int(value):
            yield from {value + 2, value // 2, 1} - {value}
        case str():
            yield "/other"
        case _:
            yield TemplateConfig(uvm_id="template", create_options=OptionsLCOW())


def _becomes_a_machine(options: OptionsLCOW) -> bool:
    paths = boot_file_paths(options, PathFlavour.POSIX)
    facts = Facts(
        platform=Platform.QEMU,
        path_flavour=PathFlavour.POSIX,
        processors=Counted(logical_processors=4),
        files_present=frozenset({paths.kernel, paths.root_fs}),
    )
    try:
        verify_bounds(options)
        refuse_not_built(options)
        check(plan_lcow(options, facts, vm_id="vm", warn=lambda _: None).document)
    except (InvalidOptions, Unsupported):
        return False
    return True


def _rules() -> str:
    lists = {"Ours, checked first": BOUNDS, "The original's, in its words": VERIFY}
    parts = [f"{head}:\n\n" + "".join(f"- {rule.text}\n" for rule in rules) for head, rules in lists.items()]
    return "## Rules\n\nAll rules of a list that are broken are reported in one error.\n\n" + "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
