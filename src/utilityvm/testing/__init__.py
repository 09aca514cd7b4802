"""Shipped fakes that behave like the real thing, and the conformance suite of drivers."""
