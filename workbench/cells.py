"""Texts on their way into a spreadsheet or a terminal, where some of them would be commands."""

import re
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def csv_cell(value: Any) -> Any:
    """The value for a CSV cell; before a text that a spreadsheet would compute stands a quote mark.

    `=cmd|...` in a text from the data would otherwise run when the file is opened (CWE-1236).
    Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def terminal_text(value: Any) -> str:
    """The value in one line without signs that move the cursor or turn the direction of writing."""
    return (
        CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value)).replace("\n", " ").replace("\t", " ")
    )
