"""Safe and readable text for terminals, pages and logs."""

from __future__ import annotations


def escape(text: str, limit: int | None = None) -> str:
    r"""Return untrusted `text` as one line that cannot control a terminal, a page or a log.

    Control, format (including bidirectional), separator and unassigned characters become escapes (`\n`, `\x1b`,
    `\u202e`). Text beyond `limit` characters is cut, and the result states how many characters were cut.
    """
    rest = 0 if limit is None else max(0, len(text) - limit)
    kept = text[:limit] if rest else text
    if not kept.isprintable():
        kept = "".join(char if char.isprintable() else _escaped(char) for char in kept)
    return f"{kept}… ({rest:,} more characters)" if rest else kept


def pluralize(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 entry`, `2,000 entries`; the default for `many` is `one` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
