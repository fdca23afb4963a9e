"""The command ``mb``, also ``python -m mbframework``.

Ctrl-C ends it with 130 and without a traceback, also while its modules are being imported.
"""

import sys


def main() -> None:
    """Run the command line, and exit with its status."""
    try:
        from mbframework.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command(prog_name="mb")


if __name__ == "__main__":
    main()
