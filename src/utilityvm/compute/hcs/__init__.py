"""The driver for Windows: documents go to the Host Compute Service, guests are reached by hvsockets."""
