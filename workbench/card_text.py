"""Any text as part of a Markdown page: it can break neither a table nor the page."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

SHOWN = 200  # characters of a text that a card shows
PLAIN = " .,-/%+=?"
BREAKS = "\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def safe_text(text: object, length: int = SHOWN) -> str:
    """A text that stays within its cell, whatever it holds; cut to `length` characters.

    Every ASCII sign that Markdown or HTML could read as its own becomes a numeric entity, line
    breaks become `<br>`, and what cannot be shown (control characters, marks that turn the writing
    direction, halves of surrogate pairs) becomes U+FFFD.
    """
    given = str(text).replace("\r\n", "\n").replace("\r", "\n")
    cut = given if len(given) <= length else given[: length - 1] + "…"
    safe = "".join(_safe(character) for character in cut)
    safe = re.sub(r"(?<=[a-zA-Z0-9])&#95;(?=[a-zA-Z0-9])", "_", safe)  # within a word it is plain
    return safe.replace("www.", "www&#46;")  # or it would become a link


def _safe(character: str) -> str:
    if character in BREAKS:
        return "<br>"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co"):
        return " " if character == "\t" else "\ufffd"
    if character.isascii() and not character.isalnum() and character not in PLAIN:
        return f"&#{ord(character)};"
    return character


def code(text: object, length: int = SHOWN) -> str:
    """The same in the type of code, for a cell or a line."""
    return f"<code>{safe_text(text, length)}</code>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the cells must be safe already (numbers, own words, or `safe_text`)."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def details(summary: str, body: str) -> str:
    """A part of the page that is folded until someone asks for it."""
    return (
        f"<details><summary>{html.escape(summary)}</summary>\n\n{body}\n\n</details>"
        if body
        else ""
    )
