"""The table of commands. To add a command, add a row here and a module in `podledger/cli/commands`.

`podledger --help` reads this table alone. Only the module of the chosen command is imported, so each can import its
dependencies at its top.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Command(NamedTuple):
    """One command: its name, its line in `podledger --help`, and its module in `podledger.cli.commands`."""

    name: str
    help: str
    module: str


GROUPS: Final[dict[str, tuple[Command, ...]]] = {
    "record the owner's actions": (
        Command("init", "create the ledger of a pod, or upgrade it", "init"),
        Command("spawned", "record that the owner spawned a child", "spawned"),
        Command("exited", "record that a child process ended", "exited"),
        Command("release", "take back the scope of a pod that is gone", "release"),
    ),
    "receive and send reports": (
        Command("serve", "receive reports on a Unix socket", "serve"),
        Command("send", "send one report to the socket of a pod", "send"),
        Command("outbox", "list, retry or discard the reports to the parent", "outbox"),
        Command("reconcile", "probe all pods once and reclaim the dead ones", "reconcile"),
    ),
    "ask what happened": (
        Command("events", "list the log", "events"),
        Command("pods", "list the pods, now or at a past moment", "pods"),
        Command("holders", "show which pods can write a path", "holders"),
        Command("explain", "show each event about a pod and what it changed", "explain"),
        Command("diff", "show what changed between two moments", "diff"),
        Command("gaps", "list reports that were sent but never arrived", "gaps"),
        Command("replay", "show what another order of the events would change", "replay"),
        Command("notifications", "list the agent's unread notifications", "notifications"),
        Command("rejected", "list received lines that are not valid reports", "rejected"),
        Command("sql", "run one read-only SQL query", "sql"),
    ),
    "check and repair": (
        Command("verify", "check that nothing in the ledger was altered", "verify"),
        Command("digest", "print a digest to keep elsewhere, for `verify --expect`", "digest"),
        Command("doctor", "look for risks and damage, and say how to fix them", "doctor"),
        Command("rebuild", "repair the projections from the log", "rebuild"),
        Command("recover", "copy the readable part of a damaged database", "recover"),
    ),
    "copy and move ledgers": (
        Command("backup", "copy the database, even while it is in use", "backup"),
        Command("bundle", "write part of a ledger to a file that others can check", "bundle"),
        Command("collect", "copy the ledgers of several databases into one", "collect"),
        Command("export", "write the log as JSON lines", "export"),
        Command("import", "append events from JSON lines", "import_"),
    ),
    "try it": (Command("demo", "run a small tree of processes and show its ledger", "demo"),),
}
"""The commands in the order and under the headings of `podledger --help`."""

COMMANDS: Final[dict[str, Command]] = {command.name: command for group in GROUPS.values() for command in group}
