"""Where things lie on this host: the one module that knows.

Root uses ``/var/lib/utilityvm`` and ``/var/cache/utilityvm``; anybody else the folders of the XDG base directory specification, each with
`utilityvm` below: ``$XDG_STATE_HOME`` (``~/.local/state``) and ``$XDG_CACHE_HOME`` (``~/.cache``). Nothing here makes a folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_NAME = "utilityvm"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places: `state` is to be kept, `cache` can be fetched or made again."""

    state: Path
    cache: Path

    @classmethod
    def of_user(cls, uid: int | None = None) -> Self:
        """Return the places of the user `uid`, by default the one who runs this process. The environment decides for all but root."""
        if (os.geteuid() if uid is None else uid) == 0:
            return cls(Path("/var/lib", _NAME), Path("/var/cache", _NAME))
        from platformdirs import PlatformDirs  # noqa: PLC0415  # 8 ms that root and `uvm --version` do without

        dirs = PlatformDirs(_NAME, appauthor=False)
        return cls(dirs.user_state_path, dirs.user_cache_path)

    @property
    def boot_files(self) -> Path:
        """The folder of boot files that VMs boot from unless told otherwise."""
        return self.state / "boot"

    @property
    def packages(self) -> Path:
        """The folder of downloaded packages."""
        return self.cache / "packages"
