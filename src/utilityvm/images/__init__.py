"""OCI images: where they come from, how they are kept, and the layers that a VM is given of them."""
