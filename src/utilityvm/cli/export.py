"""`uvm export`: write an image as an archive."""

import argparse
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Write an image as an OCI archive, to the byte as it came; docker load and podman load read it, too. A file that cannot be written "
        "whole is left as it was."
    )
    parser.add_argument("name", metavar="IMAGE", help="its name or id")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="where to (default, and -: standard output)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.images.store import ImageStore
    from utilityvm.kit.errors import InvalidOptions

    store = ImageStore.of_user()
    if args.file != "-":
        to_file(Path(args.file), f"export {args.name}", lambda file: store.export(args.name, file))
    elif sys.stdout.isatty():
        raise InvalidOptions("standard output is a terminal, which wants no archive", hint=f"uvm export {args.name} FILE, or > FILE")
    else:
        store.export(args.name, sys.stdout.buffer)
    return 0


def to_file(path: Path, what: str, write: "Callable[[BinaryIO], None]", *, mode: int = 0o666) -> None:
    """Let `write` make a file, which is whole then or as it was before; `what` is being done, for errors. The user's mask narrows `mode`.

    Raises:
        UtilityVMError: the file cannot be written; or as `write`.
    """
    from utilityvm.images.blobs import telling_what_is_wrong

    with telling_what_is_wrong(what):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):  # a pipe, a device
            with path.open("wb") as file:
                write(file)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent.resolve(strict=True), prefix=f".{path.name}.", delete=False) as file:
            written = Path(file.name)
            try:
                write(cast("BinaryIO", file.file))
                mask = os.umask(0)
                os.umask(mask)
                os.fchmod(file.fileno(), mode & ~mask)
                file.flush()
                written.replace(path)
            except BaseException:
                written.unlink(missing_ok=True)
                raise
