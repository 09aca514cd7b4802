"""`uvm prune`: remove what is nobody's, and images used longest ago."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utilityvm.images.sweep import Removed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Remove what killed commands left in the store of images and among templates. With --keep remove also the images used longest "
        "ago, until all takes no more room than that, and the templates of boots, which are made again by the next run; what a VM uses "
        "stays. Volumes and other templates are left alone."
    )
    parser.add_argument("--keep", metavar="SIZE", help="remove images until they take no more than SIZE, as 10g; 0: all that no VM uses")
    parser.add_argument("--json", action="store_true", help="print JSON, an object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from utilityvm.containers.wish import parse_size
    from utilityvm.images.store import ImageStore
    from utilityvm.store import boots, templates
    from utilityvm.store.layout import Layout

    keep, folder = None if args.keep is None else parse_size(args.keep), Layout.of_user().templates
    removed = ImageStore.of_user().prune(keep)
    freed = templates.sweep(folder) + (0 if keep is None else boots.evict(folder, 0))
    removed = replace(removed, freed=removed.freed + freed)
    if args.json:
        import msgspec

        print(msgspec.json.encode({"names": list(map(str, removed.names)), "freed": removed.freed, "in_use": removed.in_use}).decode())
    else:
        print("\n".join(_lines(removed)))
    return 0


def _lines(removed: "Removed") -> list[str]:
    from utilityvm.cli.progress import human

    lines = [f"removed {name.short}" for name in removed.names]
    lines += ["some of it is in use, and stays until its VM has ended"] if removed.in_use else []
    return [*lines, f"freed {human(removed.freed)}"]
