"""`uvm import`: make an image of an archive or a folder."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Make an image of an archive, packed or not (OCI's, that of docker save or podman save, or a root file system's), or of a folder "
        "(an OCI layout, or a root file system). Which it is is found by looking. Prints the image's name and digest."
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("--kind", choices=("oci", "docker", "rootfs"), help="what it is, instead of looking")
    parser.add_argument("source", metavar="FILE", help="the archive or folder; -: standard input")
    parser.add_argument("name", metavar="NAME", nargs="?", help="what the image will be called (default: what its archive says)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.progress import Bar
    from utilityvm.images.archive import Kind
    from utilityvm.images.store import ImageStore
    from utilityvm.kit.errors import InvalidOptions

    if args.source == "-" and sys.stdin.isatty():
        raise InvalidOptions("standard input is a terminal, which has no archive", hint="podman save NAME | uvm import -")
    source = sys.stdin.buffer if args.source == "-" else Path(args.source)
    bar = Bar(quiet=args.quiet)
    try:
        image = ImageStore.of_user().import_(source, args.name, Kind(args.kind) if args.kind else None, tell=bar)
    finally:
        bar.close()
    print(image.name.short, image.digest)
    return 0
