"""Imported first by every script: from then on Ctrl-C prints no traceback, also while the rest is still imported."""

import sys

from core.runtime.errors import report_uncaught

sys.excepthook = report_uncaught
