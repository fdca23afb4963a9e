"""``python -m mbtui``, the same as the command ``mbtui``."""

import sys

from mbtui import main

if __name__ == "__main__":
    sys.exit(main())
