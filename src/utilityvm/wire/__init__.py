"""Pure codecs: bytes in, events out. Nothing here does I/O or knows a clock."""
