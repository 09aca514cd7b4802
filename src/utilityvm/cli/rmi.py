"""`uvm rmi`: remove images."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = "Remove names of images, and what hangs on no other name. What a VM uses stays until the VM has ended."
    parser.add_argument("-f", "--force", action="store_true", help="also images that a VM uses, and of an id all its names")
    parser.add_argument("names", metavar="IMAGE", nargs="+", help="its name or id")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.each import do_each
    from utilityvm.images.store import ImageStore

    store = ImageStore.of_user()

    def remove(name: str) -> str:
        return "\n".join(gone.short for gone in store.remove(name, force=args.force).names)

    return do_each(args.names, remove)
