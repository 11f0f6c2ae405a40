"""Streams: which numbers of each stamped sender's sequence have arrived, as runs without a gap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Run(NamedTuple):
    """The sequence numbers `first` to `last` of one stream, which have all arrived.

    `first_seq` and `last_seq` are the entries with which these two numbers first arrived. `pod_name` is the name that
    the run's own reports give the sender, the greatest if there are several, or None.
    """

    source: str
    first: int
    last: int
    first_seq: int
    last_seq: int
    pod_name: str | None


Part = tuple[str, int, int, int, int, str | None]
"""Any part of a run, with the fields of `Run`. An append makes one for each event, so it is a plain tuple."""


def unbroken(parts: Iterable[Part]) -> Iterator[Run]:
    """Join the parts that overlap or touch; `parts` come sorted by source and first number, and so do the runs."""
    source, first, last, first_seq, last_seq, pod_name = "", 0, 0, 0, 0, None
    for part in parts:
        of, start, end, start_seq, end_seq, name = part
        if of != source or start > last + 1:
            if source:
                yield Run(source, first, last, first_seq, last_seq, pod_name)
            source, first, last, first_seq, last_seq, pod_name = part
            continue
        if start == first and start_seq < first_seq:
            first_seq = start_seq
        if end > last or (end == last and end_seq < last_seq):
            last, last_seq = end, end_seq
        if name is not None and (pod_name is None or name > pod_name):
            pod_name = name
    if source:
        yield Run(source, first, last, first_seq, last_seq, pod_name)


def names_sender(kind: str, relayed_kind: str | None, speaker: str | None, subject: str | None) -> bool:
    """Return whether an event is a sender's report about its own pod, so that it names the sender."""
    is_report = kind in ("turn_ended", "errored", "shut_down") and relayed_kind is None
    return is_report and speaker in (None, subject)
