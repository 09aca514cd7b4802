"""`uvm df`: what images and volumes take of the disk."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Print what images and volumes take of the disk: images as they came, the layers that VMs are given of them, what prune would "
        "remove of both, and named volumes."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, an object with bytes")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.progress import human
    from utilityvm.cli.table import print_table
    from utilityvm.images.store import ImageStore
    from utilityvm.images.sweep import allocated
    from utilityvm.store.layout import Layout

    layout = Layout.of_user()
    usage = ImageStore.of_user().usage()
    volumes = sorted(layout.volumes.glob("*.img"))
    sizes = {
        "images": usage.blobs,
        "layers": usage.layers,
        "leftovers": usage.leftovers,
        "volumes": sum(map(allocated, volumes)),
    }
    if args.json:
        import msgspec

        print(msgspec.json.encode({"image_count": usage.images, "volume_count": len(volumes), **sizes}).decode())
        return 0
    counts = {"images": str(usage.images), "volumes": str(len(volumes))}
    print_table(("WHAT", "COUNT", "SIZE"), [(what, counts.get(what, "-"), human(size)) for what, size in sizes.items()])
    return 0
