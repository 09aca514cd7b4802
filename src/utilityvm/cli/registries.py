"""Flags that say how a registry is spoken to, with the names that podman and skopeo have for them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utilityvm.images.formats import Platform
    from utilityvm.images.skopeo import Access


def add_registry_flags(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add = parser.add_argument_group(
        "options of the registry", "What is not said is in the files of containers-registries.conf(5)."
    ).add_argument
    add("--platform", type=_platform, metavar="OS/ARCH[/VARIANT]", help="the platform of the image (default: linux and this host's)")
    add("--authfile", type=Path, metavar="FILE", help="user names and passwords, as podman login writes them (default: where it does)")
    add("--policy", type=Path, metavar="FILE", help="whose signatures are asked for (default: /etc/containers/policy.json)")
    add("--cert-dir", type=Path, metavar="DIR", help="certificates for the registry")
    add(
        "--tls-verify",
        choices=("true", "false"),
        default="true",
        help="false: the registry may speak HTTP, or show any certificate; who is between may then give another image (default: true)",
    )


def access(args: argparse.Namespace) -> "Access":
    """Return what the flags say."""
    from utilityvm.images.skopeo import Access

    return Access(args.authfile, args.policy, args.cert_dir, tls_verify=args.tls_verify == "true")


def _platform(text: str) -> "Platform":
    from utilityvm.images.formats import parse_platform

    try:
        return parse_platform(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
