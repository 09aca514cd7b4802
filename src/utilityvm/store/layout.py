"""Where things lie on this host: the one module that knows.

Root uses ``/var/lib/utilityvm`` and ``/var/cache/utilityvm``; anybody else the folders of the XDG base directory specification, each with
`utilityvm` below: ``$XDG_STATE_HOME`` (``~/.local/state``) and ``$XDG_CACHE_HOME`` (``~/.cache``). ``$UVM_BOOT_FILES`` names another folder
of boot files, for everybody. Nothing here makes a folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from utilityvm.kit.errors import HostError

BOOT_FILES_VARIABLE = "UVM_BOOT_FILES"
"""The variable of the environment that names another folder of boot files."""

BUSYBOX_FILE = "busybox.tar"
"""The image `busybox` among the boot files."""

_NAME = "utilityvm"


class Layout(msgspec.Struct, frozen=True):
    """The places: `state` is to be kept, `cache` can be fetched or made again, `boot_files` is what VMs boot from unless told otherwise."""

    state: Path
    cache: Path
    boot_files: Path

    @classmethod
    def of_user(cls, uid: int | None = None) -> Self:
        """Return the places of the user `uid`, by default the one who runs this process. The environment decides for all but root.

        Raises:
            HostError: neither the environment nor the host's list of users says where the user's home is.
        """
        if (os.geteuid() if uid is None else uid) == 0:
            state, cache = Path("/var/lib", _NAME), Path("/var/cache", _NAME)
        else:
            from platformdirs import PlatformDirs  # noqa: PLC0415  # 8 ms that root and `uvm --version` do without

            dirs = PlatformDirs(_NAME, appauthor=False)
            try:
                state, cache = dirs.user_state_path, dirs.user_cache_path
            except RuntimeError as error:  # as in a container with a user number that it does not know
                message = f"user {os.geteuid()} has no home folder to keep things in"
                raise HostError(message, hint="set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME") from error
        chosen = os.environ.get(BOOT_FILES_VARIABLE)
        try:
            boot_files = Path(chosen).absolute() if chosen else state / "boot"
        except FileNotFoundError as error:
            message = f"{BOOT_FILES_VARIABLE}={chosen}: the folder that we are in is no more"
            raise HostError(message, hint="give an absolute path") from error
        return cls(state, cache, boot_files)

    @property
    def images(self) -> Path:
        """The folder of images: what was pulled or imported, and the layers made of it."""
        return self.state / "images"

    @property
    def layers(self) -> Path:
        """The folder of the layers of images, by the digests of what they were made of."""
        return self.images / "layers"

    @property
    def shipped_images(self) -> Mapping[str, Path]:
        """The archives of images that come with the boot files, by the images' names."""
        return {"busybox": self.boot_files / BUSYBOX_FILE}

    @property
    def volumes(self) -> Path:
        """The folder of named volumes, a disk image each."""
        return self.state / "volumes"

    @property
    def scratch(self) -> Path:
        """The folder that containers' scratch disks are made in; they have no names there, so that nothing stays of them."""
        return self.state / "scratch"

    @property
    def templates(self) -> Path:
        """The folder of templates, a folder each."""
        return self.state / "templates"

    @property
    def templates_lock(self) -> Path:
        """The file that is locked by who makes a template of a boot."""
        return self.state / "templates.lock"

    @property
    def places(self) -> Path:
        """The folder of records of interfaces that root's VMs are in the place of."""
        return self.state / "places"

    @property
    def disks(self) -> Path:
        """The folder of empty file systems that new disks are copied from."""
        return self.cache / "disks"

    @property
    def packages(self) -> Path:
        """The folder of downloaded packages."""
        return self.cache / "packages"

    @property
    def kernels(self) -> Path:
        """The folder of kernels that were compiled here."""
        return self.cache / "kernels"
