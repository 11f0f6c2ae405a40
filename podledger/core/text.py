"""Safe and readable text for terminals, pages and logs."""

from __future__ import annotations


def escape(text: str, limit: int | None = None, *, kept: str = "") -> str:
    r"""Return untrusted `text` as one line that cannot control a terminal, a page or a log.

    Control, format (including bidirectional), separator and unassigned characters become escapes (`\n`, `\x1b`,
    `\u202e`), except for those in `kept`. Text beyond `limit` characters is
    cut, and the result states how many characters were cut.
    """
    rest = 0 if limit is None else max(0, len(text) - limit)
    shown = text[:limit] if rest else text
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() or char in kept else _escaped(char) for char in shown)
    return f"{shown}… ({rest:,} more characters)" if rest else shown


def pluralize(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 entry`, `2,000 entries`; the default for `many` is `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
