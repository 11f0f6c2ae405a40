"""Export and import: an imported export is the same log, byte for byte, and altered lines are refused."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from podledger import Entry, Ledger
from podledger.archive.transfer import Imported, export_lines, import_lines, read_lines
from podledger.store.files import replacing
from tests.clocks import Clock
from tests.given import make_ledger
from tests.runner import podledger, podledger_json


async def exported(path: Path) -> bytes:
    """Return the export of the only ledger at `path`."""
    async with Ledger.open(path) as ledger:
        return b"".join([line async for line in export_lines(ledger)])


async def imported(path: Path, lines: Iterable[bytes], name: str = "root") -> Imported:
    """Import `lines` into the ledger at `path`, and return the counts."""
    async with Ledger.open(path, name, clock=Clock()) as ledger:
        done = [done async for done in import_lines(ledger, read_lines(lines, name))][-1]
        assert (await ledger.verify()).ok
        return done


async def entries(path: Path) -> list[Entry]:
    """Return every entry of the only ledger at `path`."""
    async with Ledger.open(path) as ledger:
        return [entry async for entry in ledger.entries()]


async def test_import_of_an_export_is_the_same_log(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "from")

    done = await imported(tmp_path / "to", (await exported(tmp_path / "from")).splitlines(keepends=True))

    assert done == Imported(restored=8)
    assert await entries(tmp_path / "to") == await entries(tmp_path / "from")
    assert await exported(tmp_path / "to") == await exported(tmp_path / "from")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 256
)
blanks = st.text(" \t\r", max_size=3)
stamps = st.one_of(
    st.none(),
    st.just("no stamp"),
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(lambda uuid: str(uuid).upper()),
            "source": st.integers(0, 9).map(lambda number: f"019B0000-0000-7000-8000-{number:012X}"),
            "sequence": st.integers(1, (1 << 63) - 1),
            "time": st.sampled_from(["2026-01-01T00:00:00Z", "1969-12-31t23:59:59.123456789+05:30"]),
        }
    ),
)


@st.composite
def payloads(draw: st.DrawFn) -> str:
    """Return an event as any sender may write it: any text, escaped or not, with blanks and unknown fields."""
    fields: dict[str, object] = draw(
        st.one_of(
            st.fixed_dictionaries({"kind": st.just("errored"), "pod_name": names, "message": texts}),
            st.fixed_dictionaries({"kind": st.just("shut_down"), "pod_name": names}),
            st.fixed_dictionaries({"kind": st.just("pod_spawned"), "pod_name": names, "socket_path": texts}),
        )
    )
    unknown: dict[str, object] = draw(
        st.dictionaries(st.sampled_from(["x", "é", "\n"]), st.one_of(texts, st.floats(allow_nan=False)))
    )
    fields |= {name: value for name, value in unknown.items() if value not in (float("inf"), float("-inf"))}
    if (stamp := draw(stamps)) is not None:
        fields["stamp"] = stamp
    blank = draw(blanks)
    separators = (f"{blank},{draw(blanks)}", f"{draw(blanks)}:{blank}")
    return json.dumps(fields, ensure_ascii=draw(st.booleans()), separators=separators)


lines: SearchStrategy[list[str]] = st.lists(
    st.one_of(payloads(), payloads().map(lambda payload: f'{{ "method" : "pod_event","params": {payload} }}')),
    max_size=8,
)


@given(lines)
def test_any_reports_survive_export_and_import_unchanged(history: list[str]) -> None:
    asyncio.run(_export_and_import(history))


async def _export_and_import(history: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder) / "here", Path(folder) / "there"
        first = await imported(here, (line.encode() + b"\n" for line in history))
        done = await imported(there, (await exported(here)).splitlines(keepends=True) or [b""])

        assert done == Imported(restored=first.appended)
        assert await entries(there) == await entries(here)


async def test_second_import_changes_nothing(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "from")
    lines = (await exported(tmp_path / "from")).splitlines(keepends=True)

    await imported(tmp_path / "to", lines[:5])

    assert await imported(tmp_path / "to", lines) == Imported(restored=3, present=5)
    assert await imported(tmp_path / "to", lines) == Imported(present=8)
    assert await imported(tmp_path / "to", lines[::-1]) == Imported(present=8)
    assert await imported(tmp_path / "from", [*lines, *lines]) == Imported(present=16)


ALTERED = [
    ("payload", '{"kind":"turn_ended","pod_name":"scout"}'),
    ("pod_name", "other"),
    ("recorded_at", "2026-01-01T00:00:03.000001Z"),
    ("outcome", "late"),
    ("evidence", "inferred"),
    ("sender", None),
    ("digest", "a" * 64),
    ("ledger", "other"),
    ("rules", 0),
]


@pytest.mark.parametrize(("field", "value"), ALTERED)
async def test_altered_line_is_refused(tmp_path: Path, field: str, value: object) -> None:
    await make_ledger(tmp_path / "from")
    lines = (await exported(tmp_path / "from")).splitlines(keepends=True)
    fields = json.loads(lines[3]) | {field: value}
    if field == "payload":
        del fields["event"]
    lines[3] = json.dumps(fields).encode() + b"\n"

    fresh = await imported(tmp_path / "to", lines)
    again = await imported(tmp_path / "from", lines)

    assert (fresh.restored, [number for number, _ in fresh.problems]) == (3, [4, 5, 6, 7, 8])
    assert (again.present, [number for number, _ in again.problems]) == (7, [4])


async def test_bad_line_is_rejected_and_the_rest_is_imported(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "from")
    kept = (await exported(tmp_path / "from")).splitlines(keepends=True)
    altered = kept[7].replace(b'"seq":8', b'"seq": 9')
    lines = [
        *kept[:7],
        b"\n",
        b"nonsense \xff\n",
        altered,
        b'{"method":"list_pods"}\n',
        b'{"kind":"turn_ended"}',
        b"  ",
    ]

    done = await imported(tmp_path / "to", lines)

    assert (done.restored, done.skipped) == (7, 1)
    assert [(number, reason[:20]) for number, reason in done.problems] == [
        (9, "not UTF-8 at byte 9"),
        (10, "its seq is 9, but th"),
        (12, "turn_ended.pod_name:"),
    ]
    async with Ledger.open(tmp_path / "to") as ledger:
        raws = [row.raw for row in await ledger.rejected()]
    assert raws == [b"nonsense \xff", altered.strip(), b'{"kind":"turn_ended"}']


async def test_largest_and_deepest_events_can_be_exported_and_imported(tmp_path: Path) -> None:
    deep = '{"kind":"turn_ended","pod_name":"a","x":' + "[" * 126 + "]" * 126 + "}"
    large = json.dumps({"kind": "errored", "pod_name": "a", "message": '"' * ((8 << 20) - 100)})
    too_deep = deep.replace("[]", "[[]]")

    first = await imported(tmp_path / "here", [line.encode() + b"\n" for line in (deep, large, too_deep)])
    done = await imported(tmp_path / "there", (await exported(tmp_path / "here")).splitlines(keepends=True))

    assert (first.appended, [number for number, _ in first.problems]) == (2, [3])
    assert done == Imported(restored=2)


def test_commands_export_and_import_a_ledger(tmp_path: Path) -> None:
    asyncio.run(make_ledger(tmp_path / "from"))
    file = tmp_path / "log.jsonl"

    result = podledger_json("export", "--db", tmp_path / "from", file)
    piped = podledger("export", "--db", tmp_path / "from", "-").out
    podledger("init", "--db", tmp_path / "to", "root")
    done = podledger_json("import", "--db", tmp_path / "to", file)
    again = podledger_json("import", "--db", tmp_path / "to", "-", stdin=piped)

    assert (result["events"], file.read_bytes(), file.stat().st_mode & 0o777) == (8, piped.encode(), 0o600)
    assert (done["restored"], again["present"]) == (8, 8)
    assert podledger("digest", "--db", tmp_path / "to").out == podledger("digest", "--db", tmp_path / "from").out


def test_import_reports_bad_lines_and_exits_with_1(tmp_path: Path) -> None:
    podledger("init", "--db", tmp_path / "to", "root")

    done = podledger(
        "import", "--db", tmp_path / "to", "-", stdin=b'{"kind":"turn_ended","pod_name":"a"}\n\x1b[2J\n', status=1
    )

    assert done.out == "1 event appended, 0 restored, 0 there already; 0 lines skipped, 1 rejected\n"
    assert done.err.startswith("podledger: line 2: ")
    assert "\x1b" not in done.err


def test_interrupted_export_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"before\n")

    def interrupted() -> None:
        with replacing(file, tmp_path / "l.db") as stream:
            stream.write(b"half a li")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert file.read_bytes() == b"before\n"
    assert list(tmp_path.iterdir()) == [file]
