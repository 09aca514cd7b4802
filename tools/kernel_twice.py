"""Compile our kernel in two places that share nothing, and compare what comes out. Takes twice the minutes of one kernel.

Run from anywhere: ``.venv/bin/python tools/kernel_twice.py``. Exit status: 0 when both are the same to the byte, else 1.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

from utilityvm.boot.apt import Apt
from utilityvm.boot.build import newest_source
from utilityvm.boot.compile import find_toolchain
from utilityvm.boot.packages import Packages
from utilityvm.boot.pick import Kernel, source_archive
from utilityvm.boot.source import source_kernel
from utilityvm.store.layout import Layout


def compiled(packages: Packages, cache: Path) -> Kernel:
    """Compile the newest source in the folder `cache`."""
    (package,) = packages.fetch([newest_source(packages)])

    def unpack(folder: Path) -> Path:
        packages.unpack(package, folder)
        return source_archive(folder, package.name)

    kernel, _ = source_kernel(package.sha256, find_toolchain(), unpack, cache, print, lambda _done, _about: None)
    return kernel


def main() -> int:
    """Compile twice, compare, say what was found."""
    layout = Layout.of_user()
    packages = Packages(layout.packages, Apt(), print)
    digests = []
    for place in ("first", "elsewhere/second"):
        with tempfile.TemporaryDirectory(dir=layout.cache) as temporary:
            kernel = compiled(packages, Path(temporary, place))
        digests.append(hashlib.sha256(kernel.image).hexdigest())
        print(f"{kernel.release}: {len(kernel.image)} bytes, sha256 {digests[-1]}")
    print("the same to the byte" if len(set(digests)) == 1 else "NOT the same")
    return 0 if len(set(digests)) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
