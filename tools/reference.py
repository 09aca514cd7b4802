"""Write docs/reference from the declarations in the code: options, annotations, command line, manual page.

``.venv/bin/python tools/reference.py``.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that tools is a package here as it is for the tests

from tools import command_line

from utilityvm.cli.flags import add_option_flags
from utilityvm.compute.qemu.lower import check
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.options import annotations
from utilityvm.options.declare import Option, declared
from utilityvm.options.defaults import default_processor_count
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.paths import PathFlavour
from utilityvm.options.resources import ScsiMount, VsmbOption, VsmbShare
from utilityvm.options.rule import Rule
from utilityvm.options.rules import BOUNDS, VERIFY, refuse_not_built, verify_bounds
from utilityvm.options.rules_wcow import BOUNDS_WCOW, VERIFY_WCOW
from utilityvm.options.shared import Options
from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.lcow import boot_file_paths, plan_lcow

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "reference"

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
`load_options_lcow("vm.toml")` and `uvm boot --options vm.toml` read them from a TOML or JSON file, where they have these names.
`uvm boot` has a flag for each that one word can give; a flag wins over the file. `uvm options lcow` prints the defaults on your host,
`uvm document lcow` the document that options become, `uvm document lcow --schema` the JSON Schema of documents, for editors and
programs. The Go name is hcsshim's.

```toml
# vm.toml
memory_size_in_mb = 512
processor_count = 1
kernel_boot_options = "loglevel=7"
forward_stdout = true
```

An option that the QEMU driver does not carry out yet is refused by name when the VM is created, never ignored.
VMs with Windows guests have [a page of their own](options-wcow.md).

"""


_HEAD_WCOW: Final = """\
# Options of a Windows VM

<!-- written by tools/reference.py: change src/utilityvm/options instead -->

Fields of `OptionsWCOW`, made by `default_options_wcow(...)` and `load_options_wcow("vm.toml")` as [those of a Linux VM](options.md).
No driver creates such a VM yet: `create_wcow` says so. `uvm document wcow` prints the document that options become, on any host;
`uvm options wcow` prints the defaults on yours, `uvm document wcow --schema` the JSON Schema of documents. The Go name is hcsshim's.

```toml
# vm.toml
layer_folders = ['C:\\layers\\top', 'C:\\layers\\base', 'C:\\scratch\\one']
is_clone = true
owner = "me"
processor_count = 2

[template_config]
uvm_id = "template"

[[template_config.resources]]
type = "SCSIMount"
host_path = 'C:\\scratch\\template\\sandbox.vhdx'

[template_config.create_options]
layer_folders = ['C:\\layers\\top', 'C:\\layers\\base', 'C:\\scratch\\template']
owner = "me"
processor_count = 2
```

"""


def options_page() -> str:
    """Return the page of a Linux VM's options."""
    flags = _flags(OptionsLCOW)
    sections = "".join(
        _section(option, flags.get(option.name, ""), "" if _carried_out(option) else "- Refused on QEMU today.")
        for option in declared(OptionsLCOW).values()
    )
    return f"{_HEAD}{sections}{_rules(BOUNDS, VERIFY)}"


def options_page_wcow() -> str:
    """Return the page of a Windows VM's options, and of what its template may have had."""
    flags = _flags(OptionsWCOW)
    sections = "".join(_section(option, flags.get(option.name, "")) for option in declared(OptionsWCOW).values())
    for kind in (TemplateConfigWCOW, ScsiMount, VsmbShare):
        tag = kind.__struct_config__.tag
        sections += (
            f"## In `{kind.__name__}`\n\n"
            + (f"In files `type` is `{tag}`.\n\n" if tag else "")
            + "".join(_line(option) for option in declared(kind).values())
            + "\n"
        )
    words = ", ".join(f"`{word}`" for word in VsmbOption)
    return f"{_HEAD_WCOW}{sections}The words of a share's `options`: {words}.\n\n{_rules(BOUNDS_WCOW, VERIFY_WCOW)}"


def _line(option: Option) -> str:
    return f"- `{option.name}` ({_type(option)}; Go: `{option.go}`): {option.meaning}\n"


def _section(option: Option, flags: str, remark: str = "") -> str:
    lines = [f"- Type: {_type(option)}. Default: {_default(option)}."]
    lines.append(f"- Flag: {flags}" if flags else "- No flag: no one word can give it.")
    lines += [f"- Go name: `{option.go}`"] if option.go else []
    lines += [remark] if remark else []
    return f"## {option.name}\n\n{option.meaning}\n\n" + "\n".join(lines) + "\n\n"


def _flags(options: type[Options]) -> dict[str, str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_option_flags(parser, options)
    return {action.dest: ", ".join(f"`{name}`" for name in action.option_strings) for action in parser._actions}  # noqa: SLF001


def _type(option: Option) -> str:
    if option.words:
        return "integer, or one of " + ", ".join(f"`{word}`" for word in option.words)
    if option.items:
        return "list of " + " or ".join(("text" if item is str else f"`{item.__name__}`") for item in option.items)
    return {bool: "true or false", int: "integer", str: "text"}.get(option.kind, f"table, `{option.kind.__name__}`")


def _default(option: Option) -> str:
    if option.name in OF_THE_HOST:
        return OF_THE_HOST[option.name]
    match option.default:
        case None | "" | ():
            return "none"
        case bool(value):
            return str(value).lower()
        case value:
            return str(value)


def _carried_out(option: Option) -> bool:
    """Whether some other value than the default becomes a machine on QEMU: asked of the code that creates one."""
    base = OptionsLCOW(boot_files_path="/boot")
    return any(_becomes_a_machine(msgspec.structs.replace(base, **{option.name: value})) for value in _other_values(option))


def _other_values(option: Option) -> Iterator[object]:
    match option.default:
        case bool(value):
            yield not value
        case int(value):
            yield from {value + 2, value // 2, 1} - {value}
        case str():
            yield "/other"
        case _:
            yield TemplateConfig(uvm_id="template", create_options=OptionsLCOW())


def _becomes_a_machine(options: OptionsLCOW) -> bool:
    paths = boot_file_paths(options, Platform.QEMU, PathFlavour.POSIX)
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


_HEAD_ANNOTATIONS: Final = """\
# Annotations

<!-- written by tools/reference.py: change src/utilityvm/options/annotations.py instead -->

What annotations of an OCI specification say of the VM for its container, and of the container. The names are hcsshim's.
`options_from_spec(spec)` makes options of them, and of the section `Windows.Resources`, over which they win; what neither says is the
host's default. `vm.create_container` refuses a specification whose annotations say another thing than its VM is.

In the namespace `{namespace}` an annotation that is not on this page is a mistake, and so is a text that makes no sense; all mistakes
are told together. Annotations of others are not looked at.

## Of the VM

| annotation | option | value | guests | sets as well |
| --- | --- | --- | --- | --- |
"""


def annotations_page() -> str:
    """Return the page of annotations."""
    rows = "".join(
        f"| `{one.name}` | `{one.option}` | {one.value.value} | {one.guests.value} | {one.also} |\n" for one in annotations.ANNOTATIONS
    )
    of_containers = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in annotations.OF_CONTAINERS.items())
    refused = "".join(f"- `{name}`\n" for name in annotations.NOT_CARRIED_OUT)
    head = _HEAD_ANNOTATIONS.format(namespace=annotations.NAMESPACE)
    containers = f"\n## Of the container\n\n| annotation | meaning |\n| --- | --- |\n{of_containers}"
    return f"{head}{rows}{containers}\n## Not carried out\n\nhcsshim's; refused by their names:\n\n{refused}"


def _rules(ours: Sequence[Rule[Any]], originals: Sequence[Rule[Any]]) -> str:
    lists = {"Ours, checked first": ours, "The original's, in its words": originals}
    parts = [f"{head}:\n\n" + "".join(f"- {rule.text}\n" for rule in rules) for head, rules in lists.items()]
    return "## Rules\n\nAll rules of a list that are broken are reported in one error.\n\n" + "\n".join(parts)


def pages() -> Mapping[str, str]:
    """Return every page by its name in `FOLDER`."""
    options = {"options.md": options_page(), "options-wcow.md": options_page_wcow(), "annotations.md": annotations_page()}
    return options | {"cli.md": command_line.page(), "uvm.1": command_line.manual()}


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
