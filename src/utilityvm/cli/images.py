"""`uvm images`: what images are here."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = "Print the images that are here, a line for each name. SIZE is that of their layers, which images share."
    parser.add_argument("-q", "--quiet", action="store_true", help="print ids only")
    parser.add_argument("--json", action="store_true", help="print JSON, an object for each name")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.progress import human
    from utilityvm.cli.table import print_table
    from utilityvm.images.store import ImageStore
    from utilityvm.kit.text import printable

    images = ImageStore.of_user().list()
    if args.json:
        import msgspec

        from utilityvm.images.look import brief

        print(msgspec.json.encode([brief(image) for image in images]).decode())
    elif args.quiet:
        print("\n".join(image.id for image in images), end="\n" if images else "")
    else:
        rows = [
            (image.name.short, _short(image.id), image.config.platform, _day(image.config.created), human(image.size)) for image in images
        ]
        print_table(("NAME", "ID", "PLATFORM", "CREATED", "SIZE"), [tuple(map(printable, row)) for row in rows])
    return 0


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _day(created: str) -> str:
    """Return the day of a time; of Go's zero, which builders write for none, there is none."""
    return "-" if created.startswith("0001-") else created[:10] or "-"
