"""The image `busybox` that comes with the boot files: an OCI archive of one layer. Pure, and the same pieces give the same bytes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Final

_FOLDERS: Final = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
_LINKS: Final = {"sbin": "bin", "usr/bin/env": "../../bin/busybox", "usr/sbin": "../bin", "var/run": "../run"}
_TEXTS: Final = {
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nmail:x:8:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n"
    "mail:x:8:8:mail:/var/mail:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
}
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MEDIA_TYPES: Final = "application/vnd.oci.image"


def image(program: bytes, applets: Iterable[str], architecture: str) -> bytes:
    """Return the archive of an image with the static busybox `program`, which answers to `applets`; `architecture` is Go's name of it."""
    layer = _layer(program, applets)
    said = {"Cmd": ["sh"], "Env": [_PATH]}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = _json({"architecture": architecture, "os": "linux", "config": said, "rootfs": rootfs})
    described = {"config": _descriptor("config.v1+json", config), "layers": [_descriptor("layer.v1.tar", layer)]}
    manifest = _json({"schemaVersion": 2, "mediaType": f"{_MEDIA_TYPES}.manifest.v1+json", **described})
    name = {"io.containerd.image.name": "docker.io/library/busybox:latest", "org.opencontainers.image.ref.name": "latest"}
    entry = {**_descriptor("manifest.v1+json", manifest), "annotations": name}
    index = _json({"schemaVersion": 2, "mediaType": f"{_MEDIA_TYPES}.index.v1+json", "manifests": [entry]})
    files = {"index.json": index, "oci-layout": _json({"imageLayoutVersion": "1.0.0"})}  # the index first: who looks reads little
    blobs = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (manifest, config, layer)}
    return _archive(_file(path, data, 0o644) for path, data in (files | blobs).items())


def _layer(program: bytes, applets: Iterable[str]) -> bytes:
    entries = {path: _entry(path, tarfile.DIRTYPE, mode) for path, mode in _FOLDERS.items()}
    links = dict.fromkeys((f"bin/{applet}" for applet in applets), "busybox") | _LINKS
    for path, target in links.items():
        info, _ = entries[path] = _entry(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
    entries |= {path: _file(path, text.encode(), 0o644) for path, text in _TEXTS.items()}
    entries["bin/busybox"] = _file("bin/busybox", program, 0o755)
    return _archive(entries[path] for path in sorted(entries))


_Entry = tuple[tarfile.TarInfo, bytes]


def _entry(path: str, kind: bytes, mode: int) -> _Entry:
    info = tarfile.TarInfo(path)
    info.type, info.mode = kind, mode
    return info, b""


def _file(path: str, data: bytes, mode: int) -> _Entry:
    info, _ = _entry(path, tarfile.REGTYPE, mode)
    info.size = len(data)
    return info, data


def _archive(entries: Iterable[_Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _descriptor(kind: str, blob: bytes) -> Mapping[str, object]:
    return {"mediaType": f"{_MEDIA_TYPES}.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
