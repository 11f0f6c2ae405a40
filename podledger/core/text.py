"""Text that strangers wrote, and how to print it safely."""

from __future__ import annotations


def escape(text: str, limit: int | None = None) -> str:
    r"""`text` in one line that no terminal, page or log can be steered by.

    Control, format (bidirectional ones too), separator and unassigned characters become escapes (`\n`, `\x1b`,
    `\u202e`); what is beyond `limit` characters is cut and counted.
    """
    rest = 0 if limit is None else max(0, len(text) - limit)
    kept = text[:limit] if rest else text
    if not kept.isprintable():
        kept = "".join(char if char.isprintable() else _escaped(char) for char in kept)
    return f"{kept}… ({rest:,} more characters)" if rest else kept


def pluralize(count: int, one: str, many: str | None = None) -> str:
    """How many of a thing there are: `1 entry`, `2,000 entries`; without `many`, an s is put to `one`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
