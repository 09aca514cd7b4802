"""Fuzzing of everything on the host that reads what a guest, or QEMU, has written."""
