"""What an image is to those who run it: its layers as files, and what it says of how it wants to be run."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from utilityvm.images.names import Reference


class ImageConfig(msgspec.Struct, frozen=True):
    """What an image says of itself, as in the OCI image specification; what it does not say is empty.

    `env` has lines ``NAME=value``. `exposed_ports` are as ``80/tcp``. `created` is RFC 3339, as the image has it. `variant` is of the
    architecture, e.g. ``v8``.
    """

    architecture: str
    os: str
    variant: str = ""
    created: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def platform(self) -> str:
        """The platform in docker's writing, e.g. ``linux/arm64/v8``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Image(msgspec.Struct, frozen=True):
    """An image that is whole on this host.

    `digest` is that of its manifest, as a registry says it; `id` that of its configuration, which docker calls the image's id. `layers`
    are EROFS images, the topmost first, as overlayfs takes them. `size` is that of the layers in bytes.
    """

    name: Reference
    digest: str
    id: str
    config: ImageConfig
    layers: tuple[Path, ...]
    size: int
