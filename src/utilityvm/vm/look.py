"""Looks at paths of this host for the tables of devices."""

import os
import stat
from pathlib import Path

from utilityvm.devices.ports import Seen
from utilityvm.kit.errors import HostError, NotFound


def look(path: str) -> Seen:
    """Return what `path` is. A link is what it leads to; `size` is in bytes.

    Raises:
        NotFound: nothing is there.
        HostError: it may not be looked at.
    """
    try:
        real = os.path.realpath(path, strict=True)
        found = Path(real).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path}: no such file or folder") from error
    except (OSError, ValueError) as error:
        raise HostError(f"{path}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from error
    folder, identity = stat.S_ISDIR(found.st_mode), (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    return Seen(folder, found.st_size, identity, special=not folder and not stat.S_ISREG(found.st_mode), real=real)
