"""Create the tables of a ledger: its log, its projections, its outbox and its consumers.

podledger/store/tables.py describes the same tables and indexes for SQLAlchemy; tests/test_migrations.py compares the
two. Every primary key begins with the ledger, because a database can hold several. Times are microseconds since 1970.

A migration is frozen: it states its own SQL and imports nothing of podledger. To change a table after a release, write
the next migration. On `events` and `rejected`, only add columns: rebuilding a table would drop its triggers.
"""

from textwrap import dedent

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = {
    # One row per ledger: its settings and its head. An append reads the head and not the log.
    "ledgers": """
        name TEXT NOT NULL,
        created_us INTEGER NOT NULL,
        parent_socket TEXT,
        mirror TEXT,
        head_seq INTEGER NOT NULL,
        head_us INTEGER NOT NULL,
        head_digest TEXT NOT NULL,
        rejected_count INTEGER NOT NULL,
        rejected_digest TEXT NOT NULL,
        outbox_count INTEGER NOT NULL,
        consumer_count INTEGER NOT NULL,
        rebuilds INTEGER NOT NULL,
        row_checksum TEXT NOT NULL,
        PRIMARY KEY (name)
    """,
    # The log: one row per event as it came, with its outcome and the digest of the chain up to it.
    "events": """
        ledger TEXT NOT NULL,
        seq INTEGER NOT NULL,
        recorded_us INTEGER NOT NULL,
        evidence TEXT NOT NULL,
        kind TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        payload TEXT NOT NULL,
        pid INTEGER,
        uid INTEGER,
        gid INTEGER,
        relation TEXT,
        stamp_id TEXT,
        source TEXT,
        sequence INTEGER,
        sent_us INTEGER,
        subject TEXT,
        speaker TEXT,
        relayed_kind TEXT,
        outcome TEXT NOT NULL,
        rules INTEGER NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (ledger, seq)
    """,
    # The lines that the receiver refused, byte for byte, in a digest chain of their own.
    "rejected": """
        ledger TEXT NOT NULL,
        number INTEGER NOT NULL,
        recorded_us INTEGER NOT NULL,
        raw BLOB NOT NULL,
        reason TEXT NOT NULL,
        pid INTEGER,
        uid INTEGER,
        gid INTEGER,
        digest TEXT NOT NULL,
        PRIMARY KEY (ledger, number)
    """,
    # Projection: the spans of the log in which a pod was in the registry. `tables.span_node` explains `node`.
    "tenures": """
        ledger TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        from_seq INTEGER NOT NULL,
        opened_evidence TEXT NOT NULL,
        incarnation TEXT,
        speaker TEXT,
        delegated_by TEXT NOT NULL,
        socket_path TEXT NOT NULL,
        scope TEXT NOT NULL,
        parent_pod TEXT NOT NULL,
        callback_address TEXT,
        pid INTEGER,
        start TEXT,
        until_seq INTEGER,
        closed_by TEXT,
        closed_evidence TEXT,
        confirmed_seq INTEGER,
        confirmed_evidence TEXT,
        node INTEGER NOT NULL,
        PRIMARY KEY (ledger, pod_name, from_seq)
    """,
    # Projection: the rules of each tenure's scope, one row each, with the span of the tenure.
    "grants": """
        ledger TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        from_seq INTEGER NOT NULL,
        position INTEGER NOT NULL,
        target TEXT NOT NULL,
        path TEXT NOT NULL,
        permission TEXT NOT NULL,
        recursive INTEGER NOT NULL,
        until_seq INTEGER,
        node INTEGER NOT NULL,
        PRIMARY KEY (ledger, pod_name, from_seq, position)
    """,
    # Projection: the state of each pod name under the rules.
    "pods": """
        ledger TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        newest TEXT,
        status TEXT NOT NULL,
        tenure_from INTEGER,
        early_ends TEXT,
        PRIMARY KEY (ledger, pod_name)
    """,
    # Projection: the runs of sequence numbers that arrived from each stamped sender. Between two of them is a gap.
    # `first_seq` and `last_seq` are the entries with which the first and the last number arrived.
    "streams": """
        ledger TEXT NOT NULL,
        source TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        pod_name TEXT,
        PRIMARY KEY (ledger, source, first)
    """,
    # The reports that the ledger owes its parent, each written in the transaction of the event that caused it.
    "outbox": """
        ledger TEXT NOT NULL,
        number INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        socket TEXT NOT NULL,
        payload TEXT NOT NULL,
        created_us INTEGER NOT NULL,
        status TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        last_error TEXT,
        settled_us INTEGER,
        row_checksum TEXT NOT NULL,
        PRIMARY KEY (ledger, number)
    """,
    # Up to which seq each reader of notifications has read.
    "consumers": """
        ledger TEXT NOT NULL,
        name TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        updated_us INTEGER NOT NULL,
        row_checksum TEXT NOT NULL,
        PRIMARY KEY (ledger, name)
    """,
}

INDEXES = {
    # A stamped pod's callback address is in the first delegation of the incarnation that delegated it. Of the log only
    # the delegations with a known incarnation are indexed: an index on every event would slow each append.
    "events_delegations": """
        ON events (ledger, subject, seq)
        WHERE subject IS NOT NULL AND kind IN ('pod_spawned', 'scope_sub_delegated')
    """,
    # Repetition: whether an emission was recorded before. An unstamped event costs nothing here. The id is part of it,
    # since many events may claim one source and sequence, and each would else be compared with all the others.
    "events_stamps": """
        ON events (ledger, source, sequence, stamp_id)
        WHERE source IS NOT NULL
    """,
    # The parent of a stamped delegation is the newest tenure of an incarnation.
    "tenures_lives": """
        ON tenures (ledger, incarnation, from_seq)
        WHERE incarnation IS NOT NULL
    """,
    # The registry at any seq: the spans that hold a seq are under some twenty nodes. The open ones are under node 0.
    "tenures_spans": """
        ON tenures (ledger, node, from_seq)
    """,
    # The same for the grants on a path and on the folders above it: who could write a file at any seq.
    "grants_spans": """
        ON grants (ledger, path, node, from_seq)
    """,
    # The streams with a gap, found without reading those that have none.
    "streams_gaps": """
        ON streams (ledger, source)
        WHERE first > 1
    """,
    # The sender looks for the next unsent row; the rows sent long ago, nearly all, cost it nothing.
    "outbox_pending": """
        ON outbox (ledger, number)
        WHERE status = 'pending'
    """,
}


def append_only(table: str, number: str) -> dict[str, str]:
    """Return the triggers that refuse to change, remove or replace a row of a table.

    `INSERT OR REPLACE` removes the old row without running the triggers for DELETE, so an INSERT over an existing key
    or an existing rowid has a trigger of its own.
    """
    same_row = f"ledger = NEW.ledger AND {number} = NEW.{number} OR rowid = NEW.rowid"
    refuse = f"""
        BEGIN
            SELECT RAISE(ABORT, '{table} is append-only');
        END
    """
    return {
        f"{table}_no_update": f"BEFORE UPDATE ON {table}{refuse}",
        f"{table}_no_delete": f"BEFORE DELETE ON {table}{refuse}",
        f"{table}_no_replace": f"""BEFORE INSERT ON {table}
        WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_row}){refuse}""",
    }


TRIGGERS = {
    # The triggers keep every program from changing the record by mistake. The digests reveal deliberate changes.
    **append_only("events", "seq"),
    **append_only("rejected", "number"),
    # Without its row in `ledgers` a log would have no head to compare its last digest with.
    "ledgers_no_delete": """BEFORE DELETE ON ledgers
        BEGIN
            SELECT RAISE(ABORT, 'a ledger is never removed');
        END
    """,
}


def body(sql: str) -> str:
    """Return SQL without the indentation of this file, so that the stored schema reads well."""
    first, *rest = sql.strip().split("\n")
    return "\n".join([first, *dedent("\n".join(rest)).split("\n")]).strip()


def columns(sql: str) -> str:
    """Return the columns of a table, one per line."""
    return "\n".join(f"    {line.strip()}" for line in sql.strip().split("\n"))


def upgrade() -> None:
    for name, sql in TABLES.items():
        op.execute(f"CREATE TABLE {name} (\n{columns(sql)}\n) STRICT")
    for name, sql in INDEXES.items():
        op.execute(f"CREATE INDEX {name} {body(sql)}")
    for name, sql in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {body(sql)}")


def downgrade() -> None:
    for name in reversed(TABLES):
        op.execute(f"DROP TABLE {name}")
