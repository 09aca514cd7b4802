"""The host's end of the guest connection: streams over one carrier, the GCS bridge, processes."""
