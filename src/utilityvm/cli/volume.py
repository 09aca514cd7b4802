"""`uvm volume`: named volumes, which containers leave behind on purpose."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = "List or remove named volumes. A volume is made by the first container that names it, as in uvm run -v NAME:/DIR."
    verbs = parser.add_subparsers(dest="what", required=True, metavar="ls|rm")
    listing = verbs.add_parser("ls", help="print all volumes: their size, what they take of the disk, and whether a VM has them")
    listing.add_argument("--json", action="store_true", help="print JSON, an object for each volume, with bytes")
    listing.set_defaults(run=_list)
    remove = verbs.add_parser("rm", help="remove volumes that no VM has, with all that is in them")
    remove.add_argument("names", metavar="NAME", nargs="+", help="its name")
    remove.set_defaults(run=_remove)


def _list(args: argparse.Namespace) -> int:
    from utilityvm.cli.progress import human
    from utilityvm.cli.table import print_table
    from utilityvm.containers.volumes import volumes
    from utilityvm.store.layout import Layout

    found = volumes(Layout.of_user())
    if args.json:
        import msgspec

        print(msgspec.json.encode(found).decode())
        return 0
    rows = [(one.name, human(one.size), human(one.taken), "yes" if one.in_use else "no") for one in found]
    print_table(("NAME", "SIZE", "TAKEN", "IN USE"), rows)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from utilityvm.cli.each import do_each
    from utilityvm.containers.volumes import remove_volume
    from utilityvm.store.layout import Layout

    layout = Layout.of_user()

    def remove(name: str) -> str:
        remove_volume(layout, name)
        return name

    return do_each(args.names, remove)
