"""`uvm pull`: bring images from a registry."""

import argparse
import sys

from utilityvm.cli.registries import access, add_registry_flags
from utilityvm.cli.values import seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Bring an image from a registry, by skopeo, and make its layers ready for VMs. What is here already is not fetched again, and a "
        "pull that was interrupted goes on where it was. Prints the image's name and digest."
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="give up after this time")
    add_registry_flags(parser)
    parser.add_argument("name", metavar="IMAGE", help="its name as docker has it: busybox is docker.io/library/busybox:latest")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from utilityvm.cli.progress import Bar
    from utilityvm.images.store import ImageStore

    bar = Bar(quiet=args.quiet)
    terminal = sys.stderr.fileno() if sys.stderr.isatty() and not args.quiet else None
    pulled = ImageStore.of_user().pull(
        args.name, access=access(args), platform=args.platform, tell=bar, terminal=terminal, timeout=args.timeout
    )
    try:
        image = asyncio.run(pulled)
    finally:
        bar.close()
    print(image.name.short, image.digest)
    return 0
