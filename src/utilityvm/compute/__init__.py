"""Drivers: what runs a VM."""
