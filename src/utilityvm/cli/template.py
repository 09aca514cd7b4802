"""`uvm template`: virtual machines that were saved, and that others go on from."""

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utilityvm.cli.flags import add_option_flags
from utilityvm.cli.values import seconds

if TYPE_CHECKING:
    from utilityvm.cli.attach import Signals
    from utilityvm.options.lcow import OptionsLCOW
    from utilityvm.templates.template import Template
    from utilityvm.vm.uvm import UtilityVM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Make, list, show, remove, export or import templates: VMs that were saved with all that is in their memory. uvm run and uvm boot "
        "--from NAME go on from one, in a fraction of a boot."
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="create|list|show|rm|export|import")
    _describe_create(verbs.add_parser("create", help="boot a VM, run a command in it to warm it up, and save it"))
    listing = verbs.add_parser("list", help="print all templates")
    listing.add_argument("--json", action="store_true", help="print JSON, an object for each template, with bytes and seconds since 1970")
    listing.set_defaults(run=_list)
    show = verbs.add_parser("show", help="print all that is known of templates, as JSON: an object for each")
    show.add_argument("names", metavar="NAME", nargs="+", help="its name")
    show.set_defaults(run=_show)
    remove = verbs.add_parser("rm", help="remove templates; VMs that go on from them run on")
    remove.add_argument("names", metavar="NAME", nargs="+", help="its name")
    remove.set_defaults(run=_remove)
    export = verbs.add_parser("export", help="write a template as a tar archive with digests; what its VM has never touched takes no room")
    export.add_argument("name", metavar="NAME", help="its name")
    export.add_argument("file", metavar="FILE", nargs="?", default="-", help="where to (default, and -: standard output)")
    export.set_defaults(run=_export)
    bring = verbs.add_parser("import", help="make a template of such an archive; import only those of people whose programs you would run")
    bring.add_argument("file", metavar="FILE", help="the archive; -: standard input")
    bring.add_argument("name", metavar="NAME", nargs="?", default="", help="what it will be called (default: as it was)")
    bring.set_defaults(run=_import)


def _describe_create(create: argparse.ArgumentParser) -> None:
    from utilityvm.cli import attach

    create.usage = "%(prog)s [OPTION ...] NAME [[--] COMMAND [ARG ...]]"
    create.description = (
        "Boot a VM, run COMMAND in it, and save it as the template NAME when that has ended with 0: what it leaves running runs on in each "
        "VM that goes on from it."
    )
    create.add_argument("--timeout", type=seconds, metavar="SECONDS", help="give COMMAND so long")
    attach.add_host_flags(create)
    add_option_flags(create)
    create.add_argument("words", nargs=argparse.REMAINDER, metavar="NAME [[--] COMMAND [ARG ...]]", help="its name, and what warms it up")
    create.set_defaults(run=_create)


def _create(args: argparse.Namespace) -> int:
    import asyncio

    from utilityvm.cli import attach

    return asyncio.run(attach.interruptible(partial(_make, args)))


async def _make(args: argparse.Namespace, _: "Signals") -> int:
    from utilityvm.devices import resources
    from utilityvm.vm.compose import create_lcow

    options, words = wanted(args)
    async with await create_lcow(options, require_kvm=args.require_kvm, require_jail=args.require_jail) as vm:
        await vm.start()
        if words:
            await _warm_up(vm, words, args.timeout)
        await vm.modify(resources.drivers())  # else each container's first disk would wait for them
        await vm.save_as_template()
    print(options.id)
    return 0


def wanted(args: argparse.Namespace) -> "tuple[OptionsLCOW, list[str]]":
    """Return the options of the VM, and what is run in it; refuse mistakes in them before it is booted.

    Raises:
        UtilityVMError: they contradict each other or themselves.
    """
    from utilityvm.cli.flags import wanted_options
    from utilityvm.kit.errors import InvalidOptions

    name, *words = args.words or [""]
    if not name:
        raise InvalidOptions("no name: say how the template is to be called, e.g. uvm template create warm")
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        raise InvalidOptions(
            f"{words[0]} stands behind NAME, where the command is", hint="options come first; a command behind -- may be any"
        )
    if args.timeout is not None and not words:
        raise InvalidOptions("--timeout without a command: there is nothing to apply it to")
    options = wanted_options(args, id=name, is_template=True)
    if options.id != name or not options.is_template:
        raise InvalidOptions(f"a template's VM has its name as id ({name}) and is_template, and other options say otherwise")
    return options, words


async def _warm_up(vm: "UtilityVM", words: list[str], timeout: float | None) -> None:
    import asyncio

    from utilityvm.cli import attach
    from utilityvm.kit.errors import DeadlineExceeded, GuestError

    process = await vm.create_process(words)
    try:
        async with asyncio.timeout(timeout):
            code = await attach.attach(process, stdin=False, terminal=False)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{words[0]} still ran after {timeout:g} s: nothing was saved") from error
    await process.close()
    if code:
        raise GuestError(f"{words[0]} ended with {code}: nothing was saved", call="warm-up", result=code)


def _list(args: argparse.Namespace) -> int:
    import asyncio
    import time

    from utilityvm.cli.progress import human
    from utilityvm.cli.table import print_table
    from utilityvm.templates.template import list_templates

    found = asyncio.run(list_templates())
    if args.json:
        import msgspec

        print(msgspec.json.encode([_brief(template) for template in found]).decode())
        return 0
    rows = [
        (
            template.id,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(template.created)),
            f"{template.options.memory_size_in_mb} MiB",
            str(template.options.processor_count),
            human(template.size),
        )
        for template in found
    ]
    print_table(("NAME", "CREATED", "MEMORY", "CPUS", "SIZE"), rows)
    return 0


def _brief(template: "Template") -> dict[str, object]:
    return {
        "id": template.id,
        "created": template.created,
        "memory_size_in_mb": template.options.memory_size_in_mb,
        "processor_count": template.options.processor_count,
        "size": template.size,
        "folder": str(template.folder),
    }


def _show(args: argparse.Namespace) -> int:
    import asyncio

    import msgspec

    from utilityvm.store.templates import read
    from utilityvm.templates.template import open_template

    shown = []
    for name in args.names:
        template = asyncio.run(open_template(name))
        manifest = read(template.folder.parent, name)
        shown.append(_brief(template) | {"machine": manifest.machine, "options": manifest.options})
    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    return 0


def _remove(args: argparse.Namespace) -> int:
    from utilityvm.cli.each import do_each
    from utilityvm.kit.ids import check_name
    from utilityvm.store.layout import Layout
    from utilityvm.store.templates import remove

    folder = Layout.of_user().templates

    def removed(name: str) -> str:
        check_name(name, f"{name!r} cannot name a template", "$.id", "id")
        remove(folder, name)
        return name

    return do_each(args.names, removed)


def _export(args: argparse.Namespace) -> int:
    from utilityvm.cli.export import to_file
    from utilityvm.kit.errors import InvalidOptions
    from utilityvm.kit.ids import check_name
    from utilityvm.store.layout import Layout
    from utilityvm.templates.archive import write_template

    check_name(args.name, f"{args.name!r} cannot name a template", "$.id", "id")
    write = partial(write_template, Layout.of_user().templates, args.name)
    if args.file != "-":
        to_file(Path(args.file), f"export {args.name}", write, mode=0o600)
    elif sys.stdout.isatty():
        raise InvalidOptions("standard output is a terminal, which wants no archive", hint=f"uvm template export {args.name} FILE")
    else:
        write(sys.stdout.buffer)
    return 0


def _import(args: argparse.Namespace) -> int:
    from utilityvm.images.blobs import telling_what_is_wrong
    from utilityvm.kit.errors import InvalidOptions
    from utilityvm.store.layout import Layout
    from utilityvm.templates.archive import read_template

    if args.file == "-" and sys.stdin.isatty():
        raise InvalidOptions("standard input is a terminal, which has no archive", hint="uvm template export NAME | uvm template import -")
    layout = Layout.of_user()
    with (
        telling_what_is_wrong(f"import {args.file}"),
        nullcontext(sys.stdin.buffer) if args.file == "-" else Path(args.file).open("rb") as file,
    ):
        made = read_template(layout.templates, file, args.name, layout)
    print(made)
    return 0
