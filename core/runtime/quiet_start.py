"""Imported first by every script: from then on Ctrl-C prints no traceback, also while the rest is still imported.

Nor does PyTorch, in one of several processes, print its own stack where another one is gone.
"""

import os
import sys

from core.runtime.errors import report_uncaught

sys.excepthook = report_uncaught
if "RANK" in os.environ:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
