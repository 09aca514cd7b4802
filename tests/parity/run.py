"""The parity runner's command: ``python tests/parity/run.py [--vectors DIR]``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started as a script, `tests` is not on the path
    from tests.parity.runner import main

    sys.exit(main())
