"""Keeps the generated parts of the README true: ``python -m agent.cli.docs README.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from agent.domain.capability import QUIRKS
from agent.host.events import markdown


def filled(text: str) -> str:
    """Write the tables of quirks and log events into the README's text."""
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in QUIRKS.items())
    text = re.sub(
        r"(\| quirk \| meaning \|\n\| --- \| --- \|\n)(?:\|.*\n|<!-- quirks -->\n)*",
        lambda found: f"{found.group(1)}{rows}\n",
        text,
    )
    return re.sub(
        r"<!-- events -->\n.*?<!-- /events -->",
        lambda _: f"<!-- events -->\n{markdown()}\n<!-- /events -->",
        text,
        flags=re.DOTALL,
    )


def main() -> None:
    """Rewrite the file that is named."""
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
