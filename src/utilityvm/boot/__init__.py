"""The guest's kernel and initial RAM disk: what they are, whether they are fit to boot from, and how they are built."""
