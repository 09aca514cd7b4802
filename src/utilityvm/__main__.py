"""``python -m utilityvm`` is ``uvm``."""

import sys

from utilityvm.cli.main import main

sys.exit(main())
