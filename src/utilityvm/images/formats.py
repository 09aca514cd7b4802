"""JSON of images: manifests, indexes and configurations, of OCI and of docker, which differ in media types only. Pure.

What images write that we do not know is left alone: their bytes are kept as they came.
"""

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from utilityvm.images.image import ImageConfig
from utilityvm.kit.errors import Corrupt, NotFound, Unsupported
from utilityvm.kit.text import printable

MAX_JSON: Final = 4 << 20
"""Bytes of a manifest, an index or a configuration."""

MAX_LAYERS: Final = 500
"""Layers of an image: as many as overlayfs takes."""

MAX_MANIFESTS: Final = 1000
"""Manifests that an index may list."""

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Size = Annotated[int, Meta(ge=0, le=1 << 62)]
_Decoded = TypeVar("_Decoded", bound=Struct)


class Platform(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """For which machines a manifest is."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def covers(self, os: str, architecture: str, variant: str) -> bool:
        """Whether what an image says of itself is this platform; a variant that one of them does not say is any."""
        return (self.os, self.architecture) == (os, architecture) and (not self.variant or variant in {"", self.variant})


class Descriptor(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is meant, by its digest, and how large it is."""

    media_type: str = ""
    digest: Digest
    size: Size
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image of one platform: its configuration and its layers, the lowest first."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str = ""
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_LAYERS)]


class Index(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Images of several platforms, or those of an archive."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str = ""
    manifests: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_MANIFESTS)]


class RootFs(Struct, frozen=True, kw_only=True):
    """The digests of the layers' uncompressed archives, the lowest first."""

    type: str
    diff_ids: Annotated[tuple[Digest, ...], Meta(max_length=MAX_LAYERS)]


class RunConfig(Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """How an image wants to be run; docker writes null for what is not said."""

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    working_dir: str | None = None
    stop_signal: str | None = None
    volumes: dict[str, object] | None = None
    exposed_ports: dict[str, object] | None = None
    labels: dict[str, str] | None = None


class ConfigFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration of an image."""

    architecture: str
    os: str
    rootfs: RootFs
    variant: str | None = None
    created: str | None = None
    config: RunConfig | None = None

    @property
    def platform(self) -> Platform:
        """For which machine the image is."""
        return Platform(architecture=self.architecture, os=self.os, variant=self.variant or "")

    def image_config(self) -> ImageConfig:
        """Return what those who run it want to know."""
        said = self.config or RunConfig()
        return ImageConfig(
            architecture=self.architecture,
            os=self.os,
            variant=self.variant or "",
            created=self.created or "",
            user=said.user or "",
            env=tuple(said.env or ()),
            entrypoint=_words(said.entrypoint),
            cmd=_words(said.cmd),
            working_dir=said.working_dir or "",
            stop_signal=said.stop_signal or "",
            volumes=tuple(said.volumes or ()),
            exposed_ports=tuple(said.exposed_ports or ()),
            labels=said.labels or {},
        )


def _words(said: list[str] | str | None) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said or ())


class _Kind(Struct, frozen=True, rename="camel"):
    schema_version: int = msgspec.field(name="schemaVersion", default=0)
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()


def decode_manifest(data: bytes, what: str) -> Manifest | Index:
    """Read a manifest or an index, whichever it is; `what` names it in errors.

    Raises:
        Unsupported: it is of another kind, e.g. docker's first, or of no image.
        Corrupt: it cannot be read, or is too large.
    """
    kind = decode(data, _Kind, what)
    if kind.schema_version != 2 or kind.media_type not in {"", *_INDEXES, *_MANIFESTS}:
        shown = kind.media_type or f"version {kind.schema_version}"
        raise Unsupported(f"{what}: is a manifest of a kind that is not read here: {printable(shown, 100)}")
    if kind.media_type in _INDEXES or (not kind.media_type and bytes(kind.manifests)):
        return decode(data, Index, what)
    manifest = decode(data, Manifest, what)
    if manifest.config.media_type not in {OCI_CONFIG, DOCKER_CONFIG}:
        raise Unsupported(f"{what}: is no image that can be run, but {printable(manifest.config.media_type, 100)}")
    for layer in manifest.layers:
        if not layer.media_type.startswith((OCI_LAYER, _DOCKER_LAYER)) or "encrypted" in layer.media_type:
            raise Unsupported(f"{what}: has a layer of a kind that is not read here: {printable(layer.media_type, 100)}")
    return manifest


def decode_config(data: bytes, manifest: Manifest, what: str) -> ConfigFile:
    """Read the configuration of the image `manifest`; `what` names it in errors.

    Raises:
        Corrupt: it cannot be read, is too large, or is of other layers than those of the manifest.
    """
    config = decode(data, ConfigFile, what)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise Corrupt(f"{what}: is of {len(config.rootfs.diff_ids)} layers, its manifest of {len(manifest.layers)}")
    return config


def decode(data: bytes, kind: type[_Decoded], what: str) -> _Decoded:
    """Read JSON from outside.

    Raises:
        Corrupt: it is too large, or is not a `kind`.
    """
    if len(data) > MAX_JSON:
        raise Corrupt(f"{what}: has more than {MAX_JSON} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"{what}: cannot be read: {printable(str(error), 500)}") from error


def choose(index: Index, wanted: Platform, what: str) -> Descriptor:
    """Return the manifest in `index` for the platform `wanted`; where that has no variant, one without variant is better than one with.

    Raises:
        NotFound: there is none; the message says for which platforms there are.
    """
    fit = [entry for entry in index.manifests if entry.platform and fits(entry.platform, wanted)]
    if fit:
        return min(fit, key=lambda entry: (entry.platform or wanted).variant != wanted.variant)
    there = sorted({str(entry.platform) for entry in index.manifests if entry.platform and entry.platform.os != "unknown"})
    raise NotFound(f"{what}: has no image for {wanted}, only for {printable(', '.join(there) or 'no platform', 500)}")


def fits(offered: Platform, wanted: Platform) -> bool:
    """Tell whether what is for the platform `offered` is for `wanted`, which may leave the variant open."""
    return (offered.os, offered.architecture) == (wanted.os, wanted.architecture) and wanted.variant in {"", offered.variant}


def parse_platform(text: str) -> Platform:
    """Read a platform as docker writes it: ``OS/ARCHITECTURE[/VARIANT]``.

    Raises:
        ValueError: it has too few or too many parts, or an empty one.
    """
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ValueError(f"{text!r} is not a platform: OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT")
    return Platform(os=parts[0], architecture=parts[1], variant="".join(parts[2:]))


def manifest_for(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Return the bytes of a manifest of ours; the same image gives the same bytes."""
    return msgspec.json.encode(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=tuple(layers)))
