"""What is said of an image to programs: objects for JSON."""

from msgspec.structs import asdict

from utilityvm.images.image import Image


def brief(image: Image) -> dict[str, object]:
    """Return what a list of images says of one."""
    return {
        "name": str(image.name),
        "digest": image.digest,
        "id": image.id,
        "platform": image.config.platform,
        "created": image.config.created,
        "size": image.size,
    }


def whole(image: Image) -> dict[str, object]:
    """Return all that is known of an image."""
    layers = [{"diff_id": f"sha256:{layer.stem}", "path": str(layer), "size": layer.stat().st_size} for layer in image.layers]
    return {**brief(image), "config": asdict(image.config), "layers": layers}
