"""What the page of a provider in the documentation shows: options and examples."""

from __future__ import annotations

import re

from tests.providers.batches import ROOT


def documented_options(page: str) -> list[str]:
    """The options that the page's last table names, in its order."""
    text = (ROOT / "docs" / "providers" / f"{page}.md").read_text().rpartition("| option |")[2]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def documented_examples(page: str) -> list[str]:
    """The page's programs, in their order."""
    text = (ROOT / "docs" / "providers" / f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
