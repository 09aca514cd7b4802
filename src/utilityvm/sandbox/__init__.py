"""The short way: a container of an image in a VM of its own, its programs and its files."""
