"""The command ``structtoken``, also as ``python -m structtoken``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line in `sys.argv` and returns its exit code."""
    from . import _native

    # Python would only note Ctrl-C until the command returns. The program itself decides: a training saves, others end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    name = sys.argv[0]
    if name.endswith("__main__.py"):
        name = "structtoken"
    return _native.main([name, *sys.argv[1:]], [sys.executable, "-m", "structtoken"])


if __name__ == "__main__":
    sys.exit(main())
