"""The ledger: its log, its projections, what it sends and to whom it told what.

Frozen: this file states its own SQL and imports nothing of podledger.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = (
    """\
    CREATE TABLE ledgers (
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
    ) STRICT""",
    """\
    CREATE TABLE events (
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
        stamp_id TEXT,
        source TEXT,
        sequence INTEGER,
        sent_us INTEGER,
        subject TEXT,
        outcome TEXT NOT NULL,
        rules INTEGER NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (ledger, seq)
    ) STRICT""",
    """\
    CREATE INDEX events_delegations ON events (ledger, subject, seq)
        WHERE subject IS NOT NULL AND kind IN ('pod_spawned', 'scope_sub_delegated')""",
    """\
    CREATE TABLE rejected (
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
    ) STRICT""",
    """\
    CREATE TABLE tenures (
        ledger TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        from_seq INTEGER NOT NULL,
        opened_evidence TEXT NOT NULL,
        incarnation TEXT,
        named_seq INTEGER,
        source TEXT,
        socket_path TEXT NOT NULL,
        scope TEXT NOT NULL,
        parent_pod TEXT NOT NULL,
        callback_address TEXT,
        until_seq INTEGER,
        closed_by TEXT,
        closed_evidence TEXT,
        confirmed_seq INTEGER,
        confirmed_evidence TEXT,
        node INTEGER NOT NULL,
        PRIMARY KEY (ledger, pod_name, from_seq)
    ) STRICT""",
    """\
    CREATE INDEX tenures_lives ON tenures (ledger, incarnation, from_seq)
        WHERE incarnation IS NOT NULL""",
    """\
    CREATE INDEX tenures_spans ON tenures (ledger, node, from_seq)""",
    """\
    CREATE TABLE grants (
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
    ) STRICT""",
    """\
    CREATE INDEX grants_spans ON grants (ledger, path, node, from_seq)""",
    """\
    CREATE TABLE pods (
        ledger TEXT NOT NULL,
        pod_name TEXT NOT NULL,
        newest TEXT,
        status TEXT NOT NULL,
        tenure_from INTEGER,
        PRIMARY KEY (ledger, pod_name)
    ) STRICT""",
    """\
    CREATE TABLE outbox (
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
    ) STRICT""",
    """\
    CREATE INDEX outbox_pending ON outbox (ledger, number)
        WHERE status = 'pending'""",
    """\
    CREATE TABLE consumers (
        ledger TEXT NOT NULL,
        name TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        updated_us INTEGER NOT NULL,
        row_checksum TEXT NOT NULL,
        PRIMARY KEY (ledger, name)
    ) STRICT""",
    """\
    CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN
        SELECT RAISE(ABORT, 'events is append-only');
    END""",
    """\
    CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN
        SELECT RAISE(ABORT, 'events is append-only');
    END""",
    """\
    CREATE TRIGGER events_no_replace BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM events WHERE ledger = NEW.ledger AND seq = NEW.seq OR rowid = NEW.rowid)
    BEGIN
        SELECT RAISE(ABORT, 'events is append-only');
    END""",
    """\
    CREATE TRIGGER rejected_no_update BEFORE UPDATE ON rejected
    BEGIN
        SELECT RAISE(ABORT, 'rejected is append-only');
    END""",
    """\
    CREATE TRIGGER rejected_no_delete BEFORE DELETE ON rejected
    BEGIN
        SELECT RAISE(ABORT, 'rejected is append-only');
    END""",
    """\
    CREATE TRIGGER rejected_no_replace BEFORE INSERT ON rejected
    WHEN EXISTS (SELECT 1 FROM rejected WHERE ledger = NEW.ledger AND number = NEW.number OR rowid = NEW.rowid)
    BEGIN
        SELECT RAISE(ABORT, 'rejected is append-only');
    END""",
    """\
    CREATE TRIGGER ledgers_no_delete BEFORE DELETE ON ledgers
    BEGIN
        SELECT RAISE(ABORT, 'a ledger is never removed');
    END""",
)

TABLES = ("consumers", "outbox", "pods", "grants", "tenures", "rejected", "events", "ledgers")


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
