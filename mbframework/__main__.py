"""``python -m mbframework``, the same as the command ``mb``."""

from mbframework.cli import main

if __name__ == "__main__":
    main(prog_name="mb")
