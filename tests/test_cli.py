"""The command line, used as its users use it, on a real file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from podledger.cli import commands
from podledger.cli.table import COMMANDS
from tests.incident import with_output
from tests.runner import clean_environment, podledger, podledger_json, podledger_process, start
from tests.waiting import block_until

SPAWN = ("spawned", "coder", "--socket", "/run/coder.sock", "--scope", "write:/srv/app")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the ledger of `root` in `podledger.db`."""
    podledger("init", "root", folder=tmp_path)
    return tmp_path


def test_repeated_init_keeps_the_ledger(tmp_path: Path) -> None:
    first = podledger("init", "root", "--json", folder=tmp_path)
    podledger(*SPAWN, folder=tmp_path)
    again = podledger("init", "root", "--json", folder=tmp_path)
    assert first.json()["events"] == 0
    assert again.json()["events"] == 1


def test_spawned_child_is_listed_until_it_exits(folder: Path) -> None:
    spawned = podledger_json(*SPAWN, "--callback", "/run/root.sock", folder=folder)
    before = podledger_json("pods", folder=folder)
    exited = podledger_json("exited", "coder", "--code", "0", folder=folder)
    assert (spawned["outcome"], exited["outcome"]) == ("applied", "applied")
    assert before == [
        {
            "pod_name": "coder",
            "socket_path": "/run/coder.sock",
            "scope_delegated": [{"target": "/srv/app", "permission": "write", "recursive": True}],
            "callback_address": "/run/root.sock",
            "parent_pod": "root",
            "delegated_by": "root",
            "incarnation": None,
            "from_seq": 1,
            "since": spawned["recorded_at"],
            "until_seq": None,
            "until": None,
            "closed_by": None,
            "evidence": "observed",
        }
    ]
    assert podledger_json("pods", folder=folder) == []
    assert podledger_json("pods", "--at", "1", folder=folder) == before
    ended = podledger_json("pods", "--all", folder=folder)[0]
    assert (ended["until_seq"], ended["until"]) == (2, exited["recorded_at"])


@pytest.mark.parametrize(
    ("command", "says"),
    [("events", "no events"), ("pods", "no pods"), ("notifications", "no notifications"), ("rejected", "no rejected")],
)
def test_empty_answer_is_words_or_empty_json(folder: Path, command: str, says: str) -> None:
    assert podledger(command, folder=folder).out.startswith(says)
    assert podledger(command, "--json", folder=folder).out.strip() in ("", "[]")


@pytest.mark.parametrize(
    "command",
    [
        ("export", "podledger.db"),
        ("export", "other.db"),
        ("backup", "podledger.db", "--force"),
        ("backup", "./podledger.db-wal", "--force"),
        ("backup", "link.db", "--force"),
        ("bundle", "podledger.db", "--force"),
        ("init", "root", "--mirror", "podledger.db"),
    ],
)
def test_no_command_overwrites_a_ledger(folder: Path, command: tuple[str, ...]) -> None:
    podledger(*SPAWN, folder=folder)
    podledger("--db", "other.db", "init", "other", folder=folder)
    (folder / "link.db").hardlink_to(folder / "podledger.db")
    refused = podledger(*command, folder=folder, status=None)
    assert (refused.status, "database" in refused.err) == (1, True)
    assert podledger("verify", folder=folder).out.startswith("verified: 1 event,")
    podledger("--db", "other.db", "verify", folder=folder)


@pytest.mark.parametrize("command", ["events", "verify", "pods"])
def test_unwritable_output_is_one_line_of_error(folder: Path, command: str) -> None:
    podledger(*SPAWN, folder=folder)
    with Path("/dev/full").open("wb") as full:
        done = podledger_process(command, folder=folder, stdout=full, status=1)
    assert done.err == "podledger: the output: No space left on device (free some space)\n"


def test_serve_exits_with_1_if_it_lost_a_report(folder: Path) -> None:
    with start("serve", "--socket", "s", folder=folder) as serving:
        assert serving.stdout is not None
        assert "ready" in serving.stdout.readline()
        (folder / "podledger.db").unlink()
        podledger("send", "s", "turn-ended", "child", folder=folder)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(20) == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("release", "nobody", "--reason", "x"), "ignored at seq 2: the pod was not in the registry"),
        (("exited", "nobody", "--code", "0"), "unknown at seq 2: nothing was known of this pod"),
        (("spawned", "coder", "--socket", "/other"), "conflict at seq 2: same name, other socket"),
    ],
)
def test_fact_that_changes_nothing_prints_the_reason(folder: Path, command: tuple[str, ...], says: str) -> None:
    podledger(*SPAWN, folder=folder)
    assert says in podledger(*command, folder=folder).out


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        (("spawned", "a", "--socket", ""), 2, "must not be empty"),
        (("spawned", "a", "--socket", "/a", "--scope", "write:"), 2, "'write:' is not a scope rule"),
        (("spawned", "a", "--socket", "/a", "--pid", "-4"), 2, "less than 1"),
        (("serve", "--socket", "s", "--allow-uid", "-5"), 2, "less than 0"),
        (("init", ""), 2, "'' is empty"),
        (("init", "a\nb"), 2, r"'a\nb' holds a control character"),
        (("events", "--since", "3", "--until", "1"), 2, "--since 3 is after --until 1"),
        (("import", "podledger.db"), 2, "is a database, not a file of lines"),
        (("collect", "podledger.db", "--into", "podledger.db"), 2, "is both a source and the target"),
        (("bundle", "b.bundle"), 2, "the ledger is empty"),
        (("--db", ".", "pods"), 1, "is a folder"),
        (("send", "x" * 200, "turn-ended", "a"), 1, "the socket's name is too long"),
    ],
)
def test_invalid_argument_is_refused_with_the_reason(
    folder: Path, command: tuple[str, ...], status: int, says: str
) -> None:
    refused = podledger(*command, folder=folder, status=None)
    assert (refused.status, refused.err.count("\n")) == (status, 1)
    assert says in refused.err


def test_interrupted_import_prints_what_it_did(folder: Path) -> None:
    """The import waits for a line on its standard input."""
    line = '{"kind":"turn_ended","pod_name":"a"}\n'
    with start("import", "-", folder=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.write(line * 5_000)
        importing.stdin.flush()
        block_until(lambda: len(podledger("events", "--json", "--limit", "5000", folder=folder).jsons()) == 4_000)
        importing.send_signal(signal.SIGINT)
        assert importing.wait(20) == 130
        assert importing.stderr is not None
        printed = importing.stderr.read()
    assert printed.startswith("podledger: interrupted: 4,000 events appended")
    assert podledger("verify", folder=folder).out.startswith("verified: 4,000 events")


@pytest.mark.parametrize("socket", ["", ".", "/", ".."])
def test_serve_refuses_an_impossible_socket_path(folder: Path, socket: str) -> None:
    refused = podledger("serve", "--socket", socket, folder=folder, status=None)
    assert (refused.status, refused.err.count("\n")) == (1, 1)


def test_owner_cannot_spawn_itself(folder: Path) -> None:
    refused = podledger("spawned", "root", "--socket", "/run/root.sock", folder=folder, status=None)
    assert (refused.status, "'root' owns this ledger" in refused.err) == (2, True)
    assert podledger("events", "--json", folder=folder).out == ""


def test_release_is_recorded_as_observed(folder: Path) -> None:
    podledger(*SPAWN, folder=folder)
    released = podledger_json("release", "coder", "--reason", "gone", folder=folder)
    assert (released["kind"], released["evidence"], released["outcome"]) == ("pod_reclaimed", "observed", "applied")


def test_spawned_keeps_the_incarnation(folder: Path) -> None:
    incarnation = "019a0000-0000-7000-8000-000000000001"
    podledger(*SPAWN, "--incarnation", incarnation.upper(), folder=folder)
    assert podledger_json("pods", folder=folder)[0]["incarnation"] == incarnation


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("frob",), 2, "unknown command 'frob'"),
        (("spawned", "a/b", "--socket", "/s"), 2, "holds a slash"),
        (("spawned", "a", "--socket", "/s", "--scope", "admin:/"), 2, "admin"),
        (("spawned", "a", "--socket", "/s", "--incarnation", "7"), 2, "UUIDv7"),
        (("exited", "a"), 2, "--code"),
        (("pods", "--at", "yesterday"), 2, "neither a seq nor a time"),
        (("pods", "--at", "99"), 2, "not in the log"),
        (("events", "--kind", "born"), 2, "born"),
        (("events", "--follow", "--until", "3"), 2, "no end"),
        (("pods", "--db", "absent.db"), 1, "podledger init"),
        (("pods", "--ledger", "other"), 1, "other"),
        (("import", "absent.jsonl"), 1, "absent.jsonl"),
        (("pods", "--db", "postgresql://host/db"), 2, "SQLite"),
        (("init", ".."), 2, "reserved"),
    ],
)
def test_error_is_one_line_with_a_hint(folder: Path, words: tuple[str, ...], status: int, text: str) -> None:
    result = podledger(*words, folder=folder, status=None)
    assert result.status == status
    assert result.out == ""
    assert result.err.startswith("podledger: ")
    assert result.err.count("\n") == 1
    assert text in result.err
    assert "(" in result.err


def test_shared_options_work_before_and_after_the_command(folder: Path) -> None:
    podledger(*SPAWN, folder=folder)
    before = podledger("--db", "podledger.db", "--ledger", "root", "--json", "pods", folder=folder)
    after = podledger("pods", "--db", "podledger.db", "--ledger", "root", "--json", folder=folder)
    by_environment = podledger("pods", "--json", folder=folder, PODLEDGER_DB="podledger.db", PODLEDGER_LEDGER="root")
    assert before.json() == after.json() == by_environment.json() != []


def test_invalid_setting_is_named(folder: Path) -> None:
    result = podledger("pods", folder=folder, PODLEDGER_BUSY_TIMEOUT_S="soon", status=None)
    assert result.status == 2
    assert "PODLEDGER_BUSY_TIMEOUT_S" in result.err


def test_several_ledgers_need_a_ledger_option(folder: Path) -> None:
    podledger("init", "other", folder=folder)
    unclear = podledger("pods", folder=folder, status=None)
    assert unclear.status == 1
    assert "other, root" in unclear.err
    assert podledger_json("pods", "--ledger", "other", folder=folder) == []


def test_help_and_send_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = "{'sqlalchemy', 'pydantic', 'asyncio', 'rich', 'alembic'} & set(sys.modules)"
    for words in (["--help"], ["send", "--no-stamp", str(tmp_path / "none.sock"), "turn-ended", "coder"]):
        code = (
            f"import sys; from podledger.cli import main\ntry: main({words!r})\nexcept SystemExit: pass\nprint({heavy})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "set()"


def test_events_are_filtered_and_limited(folder: Path) -> None:
    podledger(*SPAWN, folder=folder)
    lines = ['{"kind":"turn_ended","pod_name":"coder"}'] * 3 + ['{"kind":"shut_down","pod_name":"ghost"}']
    podledger("import", "-", folder=folder, stdin="\n".join(lines))

    def seqs(*words: str) -> list[int]:
        return [event["seq"] for event in podledger("events", "--json", *words, folder=folder).jsons()]

    assert seqs() == [1, 2, 3, 4, 5]
    assert seqs("--kind", "turn_ended", "--limit", "2") == [2, 3]
    assert seqs("--pod", "ghost") == seqs("--outcome", "unknown") == [5]
    assert seqs("--since", "2", "--until", "3") == [2, 3]
    assert seqs("--since", "6") == []
    assert seqs("--until", "2000-01-01T00:00:00Z") == []


def test_follow_prints_new_events(folder: Path) -> None:
    with start("events", "--follow", "--json", "--limit", "2", folder=folder) as following:
        podledger(*SPAWN, folder=folder)
        podledger("exited", "coder", "--signal", "9", folder=folder)
        assert following.stdout is not None
        kinds = [json.loads(line)["kind"] for line in following.stdout]
    assert kinds == ["pod_spawned", "pod_exited"]
    assert following.returncode == 0


def test_text_from_pods_is_printed_without_control_characters(folder: Path) -> None:
    message = "bad\x1b[2J\r\n\x07\u202e\x9b31m\u2028news"
    event = {"kind": "errored", "pod_name": "co\u202eder", "message": message}
    podledger("import", "-", folder=folder, stdin=json.dumps(event) + "\n\x1b[31mgarbage\n", status=1)
    for words in (("events",), ("notifications",), ("rejected",), ("events", "--json"), ("rejected", "--json")):
        shown = podledger(*words, folder=folder).out
        assert not [char for char in shown.replace("\n", "") if not char.isprintable()], words
    assert podledger_json("events", folder=folder)["event"] == event


def test_each_consumer_reads_a_notification_once(folder: Path) -> None:
    podledger(*SPAWN, folder=folder)
    ends = '{"kind":"shut_down","pod_name":"coder"}\n'
    podledger("import", "-", folder=folder, stdin='{"kind":"turn_ended","pod_name":"coder"}\n' + ends + ends)

    def unread(*words: str) -> list[str]:
        found = podledger_json("notifications", *words, folder=folder)
        return [notification["line"] for notification in found]

    lines = ["Pod `coder` finished a turn.", "Pod `coder` has stopped."]
    assert unread() == lines
    assert unread("--ack") == lines
    assert unread() == []
    assert unread("--consumer", "another") == lines


def test_import_appends_good_lines_and_reports_bad_ones(folder: Path) -> None:
    wire = '{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"coder"}}'
    forged = '{"method":"pod_event","params":{"kind":"pod_exited","pod_name":"coder","exit_code":0}}'
    lines = [
        wire,
        "",
        "garbage",
        '{"method":"list_pods"}',
        forged,
        '{"kind":"pod_exited","pod_name":"x","exit_code":1}',
    ]
    done = podledger("import", "-", "--json", folder=folder, stdin="\n".join(lines), status=None)
    assert done.status == 1
    assert [problem["line"] for problem in done.json()["problems"]] == [3, 5]
    assert (done.json()["appended"], done.json()["skipped"]) == (2, 1)
    assert "line 3: " in done.err
    rejected = podledger_json("rejected", folder=folder)
    assert [row["raw"] for row in rejected] == ["garbage", forged]


def test_exported_log_is_imported_with_the_same_digests(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    podledger(*SPAWN, folder=folder)
    podledger("import", "-", folder=folder, stdin='{ "kind": "errored", "pod_name":"coder", "message": "é\\u00e9" }\n')
    podledger("export", "log.jsonl", folder=folder)
    other = tmp_path_factory.mktemp("other")
    podledger("init", "root", folder=other)
    assert podledger_json("import", folder / "log.jsonl", folder=other)["restored"] == 2
    assert podledger_json("import", folder / "log.jsonl", folder=other)["present"] == 2
    results = [podledger_json("verify", folder=where) for where in (folder, other)]
    assert results[0] == results[1]
    assert results[0]["ok"] is True
    assert results[0]["events"] == 2


def test_rebuild_repairs_what_verify_finds(folder: Path) -> None:
    import sqlite3

    podledger(*SPAWN, folder=folder)
    with sqlite3.connect(folder / "podledger.db") as connection:
        connection.execute("DELETE FROM tenures")
    connection.close()
    broken = podledger("verify", "--json", folder=folder, status=None)
    assert broken.status == 1
    assert [problem["check"] for problem in broken.json()["problems"]] == ["projection"]
    assert podledger_json("rebuild", folder=folder)["rows_changed"] == 1
    podledger("verify", folder=folder)


def test_verify_reports_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "podledger.db").write_bytes(b"not a database at all" * 200)
    result = podledger("verify", "--json", folder=tmp_path, status=None)
    assert result.status == 1
    assert result.json()["ok"] is False


def test_reconcile_suspects_and_then_reclaims(folder: Path) -> None:
    podledger("spawned", "coder", "--socket", folder / "nobody.sock", folder=folder)
    patience = ("--attempts", "2", "--grace", "0", "--json")
    dry = podledger("reconcile", *patience, "--dry-run", folder=folder).json()
    verdicts = [podledger("reconcile", *patience, folder=folder).json()[0]["verdict"] for _ in range(2)]
    assert dry[0]["verdict"] == "suspected"
    assert verdicts == ["suspected", "reclaimed"]
    assert podledger_json("pods", folder=folder) == []


def test_serve_records_reports_until_sigterm(folder: Path) -> None:
    socket = folder / "root.sock"
    with start("serve", "--socket", socket, "--json", folder=folder) as serving:
        assert serving.stdout is not None
        assert json.loads(serving.stdout.readline())["ready"] is True
        podledger(*SPAWN, folder=folder)
        for words in (("turn-ended", "coder"), ("errored", "coder", "boom"), ("shut-down", "coder")):
            podledger("send", socket, *words, folder=folder)
        serving.send_signal(signal.SIGTERM)
    assert serving.returncode == 0
    assert not socket.exists()
    outcomes = [event["outcome"] for event in podledger("events", "--json", folder=folder).jsons()]
    assert outcomes == ["applied", "noted", "noted", "applied"]


def test_stamp_names_only_a_known_incarnation(folder: Path) -> None:
    incarnation = "019a0000-0000-7000-8000-000000000001"
    socket = folder / "root.sock"
    with start("serve", "--socket", socket, folder=folder) as serving:
        block_until(socket.exists)
        podledger("send", socket, "turn-ended", "a", folder=folder)
        podledger("send", socket, "turn-ended", "b", "--incarnation", incarnation, folder=folder)
        podledger("send", socket, "turn-ended", "c", "--no-stamp", folder=folder)
        serving.terminate()
    stamps = [event["event"].get("stamp") for event in podledger("events", "--json", folder=folder).jsons()]
    assert set(stamps[0]) == {"id", "source", "sequence", "time"}
    assert stamps[1]["subject"] == incarnation
    assert stamps[2] is None


def test_mirror_holds_the_registry(folder: Path) -> None:
    podledger("init", "root", "--mirror", "spawned_pods.json", folder=folder)
    podledger(*SPAWN, folder=folder)
    records = json.loads((folder / "spawned_pods.json").read_text())
    assert [sorted(record) for record in records] == [
        ["callback_address", "pod_name", "scope_delegated", "socket_path"]
    ]
    podledger("exited", "coder", "--code", "0", folder=folder)
    assert json.loads((folder / "spawned_pods.json").read_text()) == []


def test_demo_json_shows_each_failure(tmp_path: Path) -> None:
    result = podledger("demo", "--json", folder=tmp_path, status=None)
    shown = result.json()
    outcomes = {event["outcome"] for event in shown["events"]}
    assert result.status == 0
    assert {"applied", "duplicate", "late", "unknown", "noted"} <= outcomes
    assert [event["kind"] for event in shown["events"]][-1] == "pod_reclaimed"
    assert len(shown["gaps"]) == 1
    assert shown["certificate"]["ok"] is True
    assert list(tmp_path.iterdir()) == []


def test_every_command_module_is_in_the_table() -> None:
    modules = {path.stem for path in Path(commands.__file__).parent.glob("*.py")} - {"__init__"}
    assert {command.module for command in COMMANDS.values()} == modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_describes_itself(name: str, tmp_path: Path) -> None:
    helped = podledger(name, "--help", folder=tmp_path, status=None)
    assert (helped.status, helped.err) == (0, "")
    assert helped.out.startswith(f"usage: podledger {name} ")
    assert "--json" in helped.out


def test_help_lists_every_command_in_80_columns(tmp_path: Path) -> None:
    lines = podledger("--help", folder=tmp_path).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= set(COMMANDS)


def test_misspelt_command_gets_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean 'events'?" in podledger("evnts", folder=tmp_path, status=2).err


def test_commands_page_shows_what_the_commands_print() -> None:
    page = Path(__file__).parent.parent / "docs" / "commands.md"
    assert with_output(page.read_text()).splitlines() == page.read_text().splitlines()
