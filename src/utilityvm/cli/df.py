"""`uvm df`: what images, volumes and templates take of the disk."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Print what images, volumes and templates take of the disk: images as they came, the layers that VMs are given of them, what "
        "prune would remove of both, named volumes, and templates: those of boots are made by themselves."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, an object with bytes")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.progress import human
    from utilityvm.cli.table import print_table
    from utilityvm.images.store import ImageStore
    from utilityvm.images.sweep import allocated
    from utilityvm.store import boots, templates
    from utilityvm.store.layout import Layout

    layout = Layout.of_user()
    usage = ImageStore.of_user().usage()
    volumes = sorted(layout.volumes.glob("*.img"))
    of_boots = boots.ids(layout.templates)
    others = set(templates.ids(layout.templates)) - set(of_boots)
    numbers = {"images": usage.images, "volumes": len(volumes), "templates": len(others), "boot_templates": len(of_boots)}
    sizes = {
        "images": usage.blobs,
        "layers": usage.layers,
        "leftovers": usage.leftovers,
        "volumes": sum(map(allocated, volumes)),
        "templates": sum(templates.size(layout.templates / name) for name in others),
        "boot_templates": sum(templates.size(layout.templates / name) for name in of_boots),
    }
    if args.json:
        import msgspec

        counts = {f"{what.removesuffix('s')}_count": number for what, number in numbers.items()}
        print(msgspec.json.encode({**counts, **sizes}).decode())
        return 0
    rows = [
        (what.replace("boot_templates", "templates of boots"), str(numbers.get(what, "-")), human(size)) for what, size in sizes.items()
    ]
    print_table(("WHAT", "COUNT", "SIZE"), rows)
    return 0
