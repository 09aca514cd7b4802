"""`uvm prune`: remove what is nobody's, and images used longest ago."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utilityvm.images.sweep import Removed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Remove what killed commands left in the store of images, among templates and at network interfaces. With --keep remove also the "
        "images used longest ago, until all takes no more room than that, and the templates of boots, which are made again by the next "
        "run; what a VM uses stays. Volumes and other templates are left alone."
    )
    parser.add_argument("--keep", metavar="SIZE", help="remove images until they take no more than SIZE, as 10g; 0: all that no VM uses")
    parser.add_argument("--json", action="store_true", help="print JSON, an object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from msgspec.structs import replace

    from utilityvm.containers.wish import parse_size
    from utilityvm.images.store import ImageStore
    from utilityvm.store import boots, templates
    from utilityvm.store.layout import Layout

    layout = Layout.of_user()
    keep, folder = None if args.keep is None else parse_size(args.keep), layout.templates
    removed = ImageStore.of_user().prune(keep)
    freed = templates.sweep(folder) + (0 if keep is None else boots.evict(folder, 0))
    removed = replace(removed, freed=removed.freed + freed)
    places: list[str] = []
    if layout.places.is_dir():  # where root had VMs with taps
        from utilityvm.network.tap import sweep

        places = list(map(str, asyncio.run(sweep(layout.places))))
    if args.json:
        import msgspec

        told = {"names": list(map(str, removed.names)), "places": places, "freed": removed.freed, "in_use": removed.in_use}
        print(msgspec.json.encode(told).decode())
    else:
        print("\n".join(_lines(removed, places)))
    return 0


def _lines(removed: "Removed", places: list[str]) -> list[str]:
    from utilityvm.cli.progress import human

    lines = [f"removed {name.short}" for name in removed.names] + [f"removed what was left at {place}" for place in places]
    lines += ["some of it is in use, and stays until its VM has ended"] if removed.in_use else []
    return [*lines, f"freed {human(removed.freed)}"]
