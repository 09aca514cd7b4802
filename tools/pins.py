"""Write src/utilityvm/boot/pins.json: the versions and digests of the packages that boot files from a mirror are built from.

usage: tools/pins.py URL    (any mirror of Debian's main archive; its signature is checked)
"""

import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from utilityvm.boot import pins
from utilityvm.boot.mirror import SUITES, Mirror

NEWEST = ("linux-image-amd64", "linux-source")
"""Packages that depend on the newest kernel, and on its source, which is used only where a kernel is compiled."""
NONE = pins.Pins(suite=SUITES[0], date=datetime.fromtimestamp(0, UTC), packages=())


def main(url: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        mirror = Mirror([url], Path(cache), NONE, newest=True)
        kernels = [name for newest in NEWEST for name in mirror.dependencies(newest) if re.match(r"linux-(image|source)-\d", name)]
        found = mirror.find([*NEWEST, *kernels, "busybox-static", *mirror.closure("crun")])
        packages = tuple(pins.Pin(name=package.name, version=package.version, sha256=package.sha256) for package in sorted(found))
        written = pins.Pins(suite=SUITES[0], date=mirror.released(), packages=packages)
    pins.FILE.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
    print(f"{pins.FILE}: {len(packages)} packages of {written.date:%Y-%m-%d}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
