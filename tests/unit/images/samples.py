"""Small images, made from scratch."""

import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utilityvm.images import formats
from utilityvm.images.store import ImageStore

Files = dict[str, bytes | tarfile.TarInfo]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """An archive of files by name; a `TarInfo` stands for what is no file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def folder() -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


@dataclass(frozen=True)
class Sample:
    """An image of OCI: its layers as plain archives, lowest first."""

    layers: Sequence[bytes] = (tar({"etc/": folder(), "etc/name": b"low"}), tar({"etc/name": b"high"}))
    packed: bool = True
    architecture: str = "amd64"
    os: str = "linux"
    config: Mapping[str, object] = field(default_factory=lambda: {"Cmd": ["sh"], "Env": ["A=b"]})

    @property
    def config_blob(self) -> bytes:
        rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in self.layers]}
        return json.dumps({"architecture": self.architecture, "os": self.os, "config": self.config, "rootfs": rootfs}).encode()

    @property
    def layer_blobs(self) -> list[bytes]:
        return [gzip.compress(layer, mtime=0) if self.packed else layer for layer in self.layers]

    @property
    def manifest_blob(self) -> bytes:
        media_type = formats.OCI_LAYER + ("+gzip" if self.packed else "")
        layers = [descriptor(media_type, blob) for blob in self.layer_blobs]
        document = {"schemaVersion": 2, "config": descriptor(formats.OCI_CONFIG, self.config_blob), "layers": layers}
        return json.dumps(document).encode()

    @property
    def digest(self) -> str:
        return digest(self.manifest_blob)

    def blobs(self) -> dict[str, bytes]:
        return {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (self.manifest_blob, self.config_blob, *self.layer_blobs)}

    def layout(self, name: str = "sample:1") -> dict[str, bytes]:
        """The files of an OCI layout."""
        entry = {**descriptor(formats.OCI_MANIFEST, self.manifest_blob), "annotations": {"org.opencontainers.image.ref.name": name}}
        return index_of(entry) | self.blobs()

    def docker(self, *names: str) -> Files:
        """The files of docker's archive."""
        layers = {f"{digest(layer)[7:]}.tar": layer for layer in self.layers}
        config = f"{digest(self.config_blob)[7:]}.json"
        listed = [{"Config": config, "RepoTags": list(names) or None, "Layers": list(layers)}]
        return {**layers, config: self.config_blob, "manifest.json": json.dumps(listed).encode()}


def index_of(*entries: Mapping[str, object]) -> dict[str, bytes]:
    index = {"schemaVersion": 2, "manifests": entries}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def archive(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    path.write_bytes(tar(files))
    return path


def moments_within(whole: float, rounds: int, *, enough: Callable[[], bool]) -> Iterator[float]:
    """Yield seconds spread over work that takes `whole` on this machine, later ones would find it done: `rounds`, and up to five times as
    many until there is `enough`.
    """
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    for turn in range(5 * rounds):
        if turn >= rounds and enough():
            return
        yield whole * (turn % rounds + chance.random()) / rounds


def nobodys(store: ImageStore) -> list[str]:
    """What lies in a store and hangs on no record; looked for apart from the store's own code."""
    folder = store._depot.folder
    needed = {"lock", "reading"}
    for record in store._depot.records.all():
        manifest, config = store._depot.parts(record.manifest, "")
        blobs = [record.manifest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        needed |= {f"blobs/sha256/{blob[7:]}" for blob in blobs}
        needed |= {f"layers/{diff_id[7:]}.erofs" for diff_id in config.rootfs.diff_ids}
        needed.add(f"names/{hashlib.sha256(record.name.encode()).hexdigest()}.json")
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() and str(path.relative_to(folder)) not in needed
    )
