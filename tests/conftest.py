"""For every test: Ctrl-C counts, also where whoever started the tests ignores it, as a shell does for what it runs in the background."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
