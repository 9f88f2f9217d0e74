"""The gateway's command on a machine whose clock is so many seconds off: CLOCK_SHIFT=-60.

python -m tests.faults.skewed serve …
"""

from __future__ import annotations

import os
import sys
import time

if __name__ == "__main__":
    right, shift = time.time, float(os.environ["CLOCK_SHIFT"])
    time.time = lambda: right() + shift

    from app.__main__ import main

    sys.exit(main())
