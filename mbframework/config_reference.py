"""The reference of all options as Markdown, from the declarations in Config.

``python -m mbframework.config_reference`` prints it;
``python -m mbframework.config_reference docs/configuration.md`` puts it between
the two markers of that file and leaves the rest alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from mbframework.config import DEFAULTS, OPTIONS

BEGIN = "<!-- options: written by python -m mbframework.config_reference docs/configuration.md -->"
END = "<!-- end of options -->"


def reference() -> str:
    """One table for each group of options."""
    lines: list[str] = []
    for group, names in groupby(OPTIONS, key=lambda name: OPTIONS[name].group):
        lines += [f"### {group}", "", "| Option | Default | Takes | Meaning |", "|---|---|---|---|"]
        for name in names:
            option = OPTIONS[name]
            lines.append(f"| `{name}` | `{option.show(DEFAULTS[name])}` | {option.expected} | {option.help} |")
        lines.append("")
    return "\n".join(lines)


def renewed(page: str) -> str:
    """The page with the reference between its markers. Raises ValueError where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the line {BEGIN} and, after it, {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Print the reference, or renew it in the file named."""
    if not arguments:
        sys.stdout.write(reference())
        return 0
    page = Path(arguments[0])
    page.write_text(renewed(page.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
