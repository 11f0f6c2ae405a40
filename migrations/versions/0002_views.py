r"""Create the views: the ledger for people who query it in SQL.

docs/sql.md describes the seven public views, column by column. Two helper views keep them short: `tenure_parents`
says who delegated each tenure, `scope_rules` puts each grant into words. Everything else that the views share is a
function or a constant in this file, named after its concept. `fill` puts these fragments into the views.

A migration is frozen: it states its own SQL and imports nothing of podledger. SQLite 3.37 or newer runs it.

Add a column to a view
    1. Until a release contains this file, edit the view here. After that, write the next migration: drop the view,
       create it with the new column last, and copy the fragments that it needs. `downgrade` restores the old text. A
       view that reads another view need not be created again.
    2. Describe the column in docs/sql.md. tests/test_docs_sql.py compares the page with the columns of each view.
    3. In tests/test_views.py, compare the column with the library's answer.
    4. For a new migration, set `SCHEMA_HEAD` in podledger/store/schema.py to its number. tests/test_migrations.py
       runs each migration up, down and up again.

Change who counts as the parent of a tenure
    Change `TENURE_PARENTS`. The views find parents and ancestors through this view alone.
"""

import re
from textwrap import dedent, indent

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SHOWN_CHARACTERS = 4096
"""How much of a text a view shows."""

MAX_DEPTH = 1000
"""How many ancestors of a pod, or folders above a path, a view follows."""

FOREVER = 2**63 - 1
"""The last seq of a span that is still open: the largest integer of SQLite."""

DELEGATION = "kind IN ('pod_spawned', 'scope_sub_delegated')"
"""The kinds of event that delegate a scope to a pod."""


def fill(template: str, **fragments: str) -> str:
    """Put each fragment in place of its `{name}`, indented as the line that names it.

    The stored schema is then as readable as this file. Braces around anything but a name, as in `'{}'`, stay.
    """

    def filled(line: str) -> str:
        depth = line[: len(line) - len(line.lstrip())]
        return re.sub(r"\{(\w+)\}", lambda name: indent(fragments[name[1]], depth).strip(), line)

    return "\n".join(filled(line) for line in dedent(template).strip("\n").split("\n"))


# Times and texts

ESCAPES = (
    (r"'\\'", "char(1)"),
    (r"""'\"'""", """'"'"""),
    (r"'\u00'", r"'\x'"),
    (r"'\b'", r"'\x08'"),
    (r"'\f'", r"'\x0c'"),
    ("char(1)", r"'\'"),
    ("char(127)", r"'\x7f'"),
    ("char(144)", r"'\x90'"),
    ("char(155)", r"'\x9b'"),
    ("char(157)", r"'\x9d'"),
    ("char(8238)", r"'\u202e'"),
)
"""The texts that `escaped` replaces, in this order, after `json_quote` has escaped the control characters up to 0x1f.

First come the escapes of JSON that a reader does not want. 0x01 cannot be in the output of `json_quote`, so it
temporarily replaces the text's own backslash. Then come characters that JSON does not escape although they can control
a terminal: DEL, DCS, CSI, OSC and the right-to-left override.
"""


def timestamp(microseconds: str) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC with six decimals.

    Before 1970 the remainder is negative. The seconds are rounded down, so that the decimals still count forward.
    """
    return fill(
        """
        strftime('%Y-%m-%dT%H:%M:%S', {us} / 1000000 - ({us} % 1000000 < 0), 'unixepoch')
            || printf('.%06dZ', ({us} % 1000000 + 1000000) % 1000000)
        """,
        us=microseconds,
    )


def recorded_at(ledger: str, seq: str) -> str:
    """Return when an entry was recorded."""
    return f"(SELECT e.recorded_at FROM event_log AS e WHERE e.ledger = {ledger} AND e.seq = {seq})"


def escaped(text: str) -> str:
    """Return a text in one line, its control characters escaped as `podledger.core.text.escape` escapes them.

    `json_quote` does most of the work. The two calls of `substr` take its quotes away without a second call for the
    length: a negative length reads backwards from the last character.
    """
    quoted = f"substr(substr(json_quote({text}), -1, -2000000000), 2)"
    replaced = [f"{old}, {new})" for old, new in ESCAPES]
    return fill(
        """
        {calls}
            {quoted},
            {json},
            {steering}
        """,
        calls="replace(" * len(ESCAPES),
        quoted=quoted,
        json=", ".join(replaced[:6]),
        steering=", ".join(replaced[6:]),
    )


def one_line(text: str) -> str:
    """Return the beginning of a text, escaped, and how much longer the text is; null for null.

    `json_quote` makes a word of null, so the last CASE must be null then: it has no ELSE. It is written with one
    comparison because SQLite computes `text`, which may be a subquery, once for each mention.
    """
    return fill(
        """
        {escaped}
            || CASE length({text}) > {shown}
                WHEN 1 THEN printf('… (%,d more characters)', length({text}) - {shown})
                WHEN 0 THEN ''
            END
        """,
        escaped=escaped(f"substr({text}, 1, {SHOWN_CHARACTERS})"),
        text=text,
        shown=str(SHOWN_CHARACTERS),
    )


def field(payload: str, name: str) -> str:
    """Return a field of a payload, or null where the payload is not JSON: a damaged entry must not end the query."""
    return f"CASE WHEN json_valid({payload}) THEN json_extract({payload}, '$.{name}') END"


# Scopes and paths


def scope_in_words(scope: str) -> str:
    """Return a scope as `write:/srv read-here:/etc`, empty for none; `scope` is the arguments of `json_each`."""
    return fill(
        """
        coalesce((
            SELECT group_concat(
                json_extract(rule.value, '$.permission')
                || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                || json_extract(rule.value, '$.target'), ' ')
            FROM json_each({scope}) AS rule WHERE rule.type = 'object'), '')
        """,
        scope=scope,
    )


SCOPE_RULES = fill(
    """
    CREATE VIEW scope_rules AS
    -- Helper of the other views: one row per granted rule, in words, with what each path below its target begins with.
    -- The nested calls of replace escape control characters, so that no text can steer a terminal.
    SELECT
        rowid AS rule,
        ledger,
        pod_name,
        from_seq,
        until_seq,
        permission,
        target,
        recursive,
        path,
        CASE path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE path || '/' END AS start,
        permission || CASE recursive WHEN 0 THEN '-here:' ELSE ':' END
            || {target} AS words
    FROM grants
    """,
    target=one_line("target"),
)


def covers(rule: str, path: str) -> str:
    """Return whether a rule of `scope_rules` reaches a normalised path, as `podledger.core.paths` decides it.

    A rule reaches its target. Below the target it reaches everything, or the direct children only. A relative path is
    below `.` unless it leaves it with `..`.
    """
    return fill(
        """
        ({path} = {rule}.path OR (
            substr({path}, 1, length({rule}.start)) = {rule}.start
            AND ({rule}.recursive = 1 OR instr(substr({path}, length({rule}.start) + 1), '/') = 0)
            AND ({rule}.path <> '.' OR substr({path}, 1, 1) <> '/')
            AND substr({path}, length({rule}.start) + 1) || '/' NOT LIKE '../%'))
        """,
        rule=rule,
        path=path,
    )


FOLDER = "rtrim(path, replace(path, '/', ''))"
"""The folder of `path` with the slash at its end: the path without its last characters that are no slash."""

PARENT_PATH = f"""\
CASE {FOLDER}
    WHEN '' THEN '.'
    WHEN '/' THEN '/'
    ELSE substr({FOLDER}, 1, length({FOLDER}) - 1)
END"""
"""The folder that `path` is in: `/` for `/srv`, `.` for a relative name."""


# Lineage

OPEN_TENURES = "ledgers AS l CROSS JOIN tenures AS t ON t.ledger = l.name AND t.node = 0"
"""The open tenures, through the index `tenures_spans`: it begins with the ledger, and node 0 holds the open spans."""


def open_tenure_of(pod_name: str) -> str:
    """Return the tenure of a pod name that was open when `t` opened; null if its newest tenure had closed by then.

    Only the newest one can have been open. Asking for it first reads one row of the index.
    """
    return fill(
        """
        (
            SELECT CASE WHEN p.until_seq IS NULL OR p.until_seq > t.from_seq THEN p.rowid END
            FROM tenures AS p
            WHERE p.ledger = t.ledger AND p.pod_name = {pod_name} AND p.from_seq < t.from_seq
            ORDER BY p.from_seq DESC LIMIT 1
        )
        """,
        pod_name=pod_name,
    )


TENURE_PARENTS = fill(
    """
    CREATE VIEW tenure_parents AS
    -- Helper of the other views: each tenure and its parent, both by their rowid in the table tenures.
    -- The parent is the newest tenure of the incarnation that delegated it. If that incarnation is unknown, the parent
    -- is the tenure of the delegating pod that was open then. It is null if that is unknown or the owner.
    SELECT
        t.rowid AS tenure,
        t.ledger,
        t.pod_name,
        t.from_seq,
        t.delegated_by,
        t.node,
        coalesce((
            SELECT p.rowid
            FROM tenures AS p
            WHERE p.ledger = t.ledger AND p.incarnation = t.speaker
            ORDER BY p.from_seq DESC LIMIT 1
        ), {by_name}) AS parent
    FROM tenures AS t
    """,
    by_name=open_tenure_of("t.delegated_by"),
)

NEAREST_OPEN_ANCESTOR = f"""\
(
    WITH RECURSIVE up (depth, tenure, pod_name, found, seen) AS (
        SELECT 0, t.rowid, t.pod_name, 0, '/' || t.from_seq || '/'
        UNION ALL
        SELECT up.depth + 1, p.rowid, p.pod_name, p.until_seq IS NULL, up.seen || p.from_seq || '/'
        FROM up
            JOIN tenure_parents AS child ON child.tenure = up.tenure
            JOIN tenures AS p ON p.rowid = child.parent
        WHERE NOT up.found AND up.depth < {MAX_DEPTH} AND instr(up.seen, '/' || p.from_seq || '/') = 0
    )
    SELECT pod_name FROM up WHERE found
)"""
"""The pod of the nearest ancestor of `t` that is open, null if there is none.

Pods may claim to be each other's parents, so a walk stops before it comes back to a tenure that it has seen.
"""


def descends(child: str, ancestor: str) -> str:
    """Return whether the tenure of the rule `child` is, or descends from, that of the rule `ancestor`.

    A pod that was reclaimed and reported again has two tenures of one incarnation; a child descends from both.
    `UNION` keeps each tenure once, so that a circle of parents ends.
    """
    return fill(
        """
        EXISTS (
            WITH RECURSIVE up (tenure) AS (
                SELECT t.rowid FROM tenures AS t
                WHERE t.ledger = {child}.ledger AND t.pod_name = {child}.pod_name AND t.from_seq = {child}.from_seq
                UNION
                SELECT t.parent FROM up JOIN tenure_parents AS t ON t.tenure = up.tenure
            )
            SELECT 1
            FROM up
                JOIN tenures AS t ON t.rowid = up.tenure
                JOIN tenures AS a ON a.ledger = {ancestor}.ledger AND a.pod_name = {ancestor}.pod_name
                    AND a.from_seq = {ancestor}.from_seq
            WHERE t.from_seq = a.from_seq OR t.pod_name = a.pod_name AND t.incarnation = a.incarnation)
        """,
        child=child,
        ancestor=ancestor,
    )


CALLBACK_ADDRESS = fill(
    """
    coalesce(t.callback_address, CASE WHEN t.speaker IS NULL
        THEN coalesce(
            (SELECT p.socket_path FROM tenures AS p WHERE p.rowid = {standing}),
            (
                SELECT p.socket_path
                FROM tenures AS p
                WHERE p.ledger = t.ledger AND p.pod_name = t.parent_pod AND p.from_seq > t.from_seq
                ORDER BY p.from_seq LIMIT 1
            ))
        ELSE (
            SELECT json_extract(d.payload, CASE d.kind WHEN 'pod_spawned' THEN '$.socket_path' ELSE '$.sub_socket' END)
            FROM events AS d
            WHERE d.ledger = t.ledger AND d.subject = t.speaker
                AND d.subject IS NOT NULL AND d.{delegation}
            ORDER BY d.seq LIMIT 1
        )
    END, '')
    """,
    standing=open_tenure_of("t.parent_pod"),
    delegation=DELEGATION,
)
"""Where the pod of `t` reports to: the address that was stated, else the socket of the pod that delegated it.

If the delegation names its speaker, that is the socket in the first delegation of that incarnation; the query
repeats the condition of the index `events_delegations`. Otherwise it is the socket of the named parent: of the tenure
that was open then, else of the next one.
"""


# The public views

EVENT_LOG = fill(
    """
    CREATE VIEW event_log AS
    -- The log: one row per event, in the order in which the ledger recorded them.
    -- The nested calls of replace escape control characters, so that no text can steer a terminal.
    SELECT
        ledger,
        seq,
        {recorded_at} AS recorded_at,
        kind,
        pod_name,
        outcome,
        CASE WHEN kind NOT IN ('turn_ended', 'shut_down') THEN
            {detail}
        END AS detail,
        evidence,
        CASE kind
            WHEN 'pod_spawned' THEN ledger
            WHEN 'scope_sub_delegated' THEN {parent_pod}
        END AS parent_pod,
        pid AS sender_pid,
        uid AS sender_uid,
        gid AS sender_gid,
        subject AS incarnation,
        source,
        sequence,
        {sent_at} AS sent_at,
        stamp_id,
        rules,
        payload,
        digest,
        speaker,
        relayed_kind,
        relation AS sender_relation
    FROM (
        SELECT
            *,
            {text} AS text
        FROM events
    )
    """,
    recorded_at=timestamp("recorded_us"),
    sent_at=timestamp("sent_us"),
    detail=one_line("text"),
    parent_pod=field("payload", "parent_pod"),
    text=fill(
        """
        CASE
            WHEN NOT json_valid(payload) THEN NULL
            WHEN kind = 'errored' THEN json_extract(payload, '$.message')
            WHEN kind IN ('pod_unreachable', 'pod_reclaimed') THEN json_extract(payload, '$.reason')
            WHEN kind = 'pod_exited' THEN coalesce(
                'code ' || json_extract(payload, '$.exit_code'), 'signal ' || json_extract(payload, '$.signal'))
            WHEN {delegation} THEN rtrim(
                json_extract(payload, CASE kind WHEN 'pod_spawned' THEN '$.socket_path' ELSE '$.sub_socket' END)
                || ' ' || {scope})
        END
        """,
        delegation=DELEGATION,
        scope=scope_in_words("payload, '$.scope'"),
    ),
)

LIVE_PODS = fill(
    """
    CREATE VIEW live_pods AS
    -- The registry now: one row per pod believed alive.
    SELECT
        t.ledger,
        t.pod_name,
        t.parent_pod,
        coalesce({ancestor}, t.ledger) AS under,
        t.from_seq,
        {since} AS since,
        {scope} AS scope,
        t.socket_path,
        {callback_address} AS callback_address,
        t.incarnation,
        t.opened_evidence AS evidence,
        t.delegated_by
    FROM {open_tenures}
    """,
    ancestor=NEAREST_OPEN_ANCESTOR,
    since=recorded_at("t.ledger", "t.from_seq"),
    scope=scope_in_words("t.scope"),
    callback_address=CALLBACK_ADDRESS,
    open_tenures=OPEN_TENURES,
)

POD_HISTORY = fill(
    """
    CREATE VIEW pod_history AS
    -- Every tenure, open or closed: one row for each time that a pod was in the registry.
    SELECT
        t.ledger,
        t.pod_name,
        t.from_seq,
        t.until_seq,
        {since} AS since,
        {until} AS until,
        (SELECT e.kind FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq) AS opened_by,
        t.opened_evidence,
        t.closed_by,
        coalesce(t.confirmed_evidence, t.closed_evidence) AS closed_evidence,
        t.confirmed_seq,
        t.parent_pod,
        {scope} AS scope,
        t.socket_path,
        t.incarnation,
        t.delegated_by,
        t.speaker
    FROM tenures AS t
    """,
    since=recorded_at("t.ledger", "t.from_seq"),
    until=recorded_at("t.ledger", "t.until_seq"),
    scope=scope_in_words("t.scope"),
)

OPEN_LINES = fill(
    """
    line (ledger, pod_name, from_seq, depth, above, above_pod, above_seq, chain, tenures) AS (
        SELECT
            t.ledger, t.pod_name, t.from_seq, 0, t.rowid, t.pod_name, t.from_seq,
            t.pod_name, '/' || t.from_seq || '/'
        FROM {open_tenures}
        UNION ALL
        SELECT
            line.ledger, line.pod_name, line.from_seq, line.depth + 1, p.rowid, p.pod_name, p.from_seq,
            p.pod_name || '/' || line.chain, '/' || p.from_seq || line.tenures
        FROM line
            JOIN tenure_parents AS child ON child.tenure = line.above
            JOIN tenures AS p ON p.rowid = child.parent
        WHERE line.depth < {max_depth} AND instr(line.tenures, '/' || p.from_seq || '/') = 0
    )
    """,
    open_tenures=OPEN_TENURES,
    max_depth=str(MAX_DEPTH),
)
"""Each open tenure with each of its ancestors (`above`), and the chain between them in names and in seqs.

The row of the greatest depth holds the whole chain. A walk stops before it comes back to a tenure that it has seen.
"""

LENT_ON = fill(
    """
    lent (rule, wholly, lent_on) AS (
        SELECT rule, max(wholly), group_concat(lent_to, ' ')
        FROM (
            SELECT
                g.rule,
                d.pod_name || ':' || d.path AS lent_to,
                {lent_covers_target} AS wholly,
                {target_covers_lent} AS partly
            FROM line
                CROSS JOIN scope_rules AS d
                    ON d.ledger = line.ledger AND d.pod_name = line.pod_name AND d.from_seq = line.from_seq
                CROSS JOIN scope_rules AS g
                    ON g.ledger = line.ledger AND g.pod_name = line.above_pod AND g.from_seq = line.above_seq
            WHERE line.depth > 0 AND g.until_seq IS NULL AND d.permission = 'write' AND g.permission = 'write'
            ORDER BY d.path, d.from_seq, d.rule
        )
        WHERE wholly OR partly
        GROUP BY rule
    )
    """,
    lent_covers_target=covers("d", "g.path"),
    target_covers_lent=covers("g", "d.path"),
)
"""Each open write grant `g` that meets write grants `d` of descendants, and whether one of them covers its target.

`CROSS JOIN` keeps the order of the joins. SQLite would otherwise pair all grants with each other first.
"""

WRITE_HOLDERS = fill(
    """
    CREATE VIEW write_holders AS
    -- Who may write now: one row per open write grant, with what its pod lent on to its descendants.
    WITH RECURSIVE {open_lines},
    {lent},
    whole AS (
        SELECT ledger, pod_name, from_seq, chain, tenures, max(depth) FROM line GROUP BY ledger, pod_name, from_seq
    )
    SELECT
        g.ledger,
        g.pod_name,
        g.target,
        CASE g.recursive WHEN 1 THEN 'all below' ELSE 'direct children' END AS reach,
        CASE WHEN lent.wholly THEN 'no' ELSE 'yes' END AS holds_target,
        lent.lent_on,
        g.ledger || '/' || whole.chain AS chain,
        g.from_seq,
        {since} AS since,
        g.path,
        rtrim(g.path, '/') || '/' AS prefix,
        whole.tenures
    FROM whole
        JOIN scope_rules AS g ON g.ledger = whole.ledger AND g.pod_name = whole.pod_name AND g.from_seq = whole.from_seq
        LEFT JOIN lent ON lent.rule = g.rule
    WHERE g.permission = 'write'
    """,
    open_lines=OPEN_LINES,
    lent=LENT_ON,
    since=recorded_at("g.ledger", "g.from_seq"),
)

NOTIFICATIONS = fill(
    """
    CREATE VIEW notifications AS
    -- What agents are notified of: one row per line. The table consumers says up to which seq each agent has read.
    -- The nested calls of replace escape control characters, so that no text can steer a terminal.
    SELECT
        ledger,
        seq,
        recorded_at,
        kind,
        pod_name,
        'Pod `'
            || {pod_name}
            || '` '
            || CASE kind
                WHEN 'turn_ended' THEN 'finished a turn.'
                WHEN 'shut_down' THEN 'has stopped.'
                ELSE 'reported an error: ' || detail
            END AS line,
        outcome
    FROM event_log
    WHERE kind IN ('turn_ended', 'errored', 'shut_down') AND outcome <> 'duplicate'
        AND relayed_kind IS NULL AND payload <> '{}'
    """,
    pod_name=one_line("pod_name"),
)

GAPS = fill(
    """
    CREATE VIEW gaps AS
    -- What stamped senders sent and the ledger never received: one row per run of missing numbers.
    WITH ordered AS (
        SELECT
            ledger, source, first, first_seq,
            max(pod_name) OVER (PARTITION BY ledger, source) AS pod_name,
            lag(last, 1, 0) OVER (PARTITION BY ledger, source ORDER BY first) AS before,
            lag(last_seq) OVER (PARTITION BY ledger, source ORDER BY first) AS after_seq
        FROM streams
        WHERE (ledger, source) IN (SELECT ledger, source FROM streams WHERE first > 1)
    )
    SELECT
        ledger,
        pod_name,
        source,
        before + 1 AS first_missing,
        first - 1 AS last_missing,
        first - before - 1 AS missing,
        after_seq,
        {after_at} AS after_at,
        first_seq AS before_seq,
        {before_at} AS before_at
    FROM ordered AS o
    WHERE first > before + 1
    """,
    after_at=recorded_at("o.ledger", "o.after_seq"),
    before_at=recorded_at("o.ledger", "o.first_seq"),
)


# The anomalies: one query per kind, each with the columns ledger, seq, what, pod_name and detail

ODD_OUTCOMES = """\
odd_outcomes AS (
    SELECT
        ledger, seq, outcome AS what, pod_name,
        kind || coalesce(' by process ' || sender_pid, '') || coalesce(': ' || detail, '') AS detail
    FROM event_log
    WHERE outcome IN ('conflict', 'late', 'revived', 'unknown')
)"""
"""The events with an outcome that an audit looks for."""

ORPHANS = """\
orphans AS (
    SELECT
        t.ledger, max(t.from_seq, coalesce(p.until_seq, 0)) AS seq, 'orphan' AS what, t.pod_name,
        'its parent ' || CASE WHEN p.from_seq IS NULL THEN t.delegated_by || ' is not in the registry'
            ELSE p.pod_name || ' ended at seq ' || p.until_seq || ' (' || p.closed_by || ')' END AS detail
    FROM ledgers AS l
        CROSS JOIN tenure_parents AS t ON t.ledger = l.name AND t.node = 0
        LEFT JOIN tenures AS p ON p.rowid = t.parent
    WHERE p.until_seq IS NOT NULL OR (p.from_seq IS NULL AND t.delegated_by <> t.ledger AND NOT EXISTS (
        SELECT 1 FROM tenures AS n
        WHERE n.ledger = t.ledger AND n.pod_name = t.delegated_by AND n.until_seq IS NULL))
)"""
"""The open tenures whose parent has ended, or is unknown, not the owner and not in the registry by its name."""


def node_above(seq: str) -> str:
    """Return the node at the level `bit` on the way down the tree of spans to a seq; see `tables.span_node`."""
    return f"({seq} >> bit | 1) << bit"


MEETINGS = fill(
    """
    reach (rule, ledger, from_seq, last_seq, path, up) AS (
        SELECT rule, ledger, from_seq, coalesce(until_seq - 1, {forever}), path, 0
        FROM scope_rules WHERE permission = 'write'
        UNION ALL
        SELECT
            rule, ledger, from_seq, last_seq,
            {parent_path},
            up + 1
        FROM reach WHERE path NOT IN ('/', '.', '..') AND path NOT LIKE '%/..' AND up < {max_depth}
    ),
    level (bit) AS (
        SELECT 0 UNION ALL SELECT bit + 1 FROM level WHERE 1 << (bit + 1) <= (SELECT max(head_seq) FROM ledgers)
    ),
    outer_node AS (
        SELECT r.*, 0 AS node FROM reach AS r
        UNION ALL
        SELECT r.*, {above_first} FROM reach AS r CROSS JOIN level
        WHERE {above_first} < r.from_seq
        UNION ALL
        SELECT r.*, {above_last} FROM reach AS r CROSS JOIN level
        WHERE {above_last} > r.last_seq
    ),
    meeting (rule, other, up) AS MATERIALIZED (
        SELECT r.rule, w.rowid, r.up
        FROM reach AS r CROSS JOIN grants AS w
        WHERE w.ledger = r.ledger AND w.path = r.path AND w.node BETWEEN r.from_seq AND r.last_seq
        UNION ALL
        SELECT r.rule, w.rowid, r.up
        FROM outer_node AS r CROSS JOIN grants AS w
        WHERE w.ledger = r.ledger AND w.path = r.path AND w.node = r.node
            AND w.from_seq <= r.last_seq AND (w.until_seq IS NULL OR w.until_seq > r.from_seq)
    )
    """,
    parent_path=PARENT_PATH,
    above_first=node_above("r.from_seq"),
    above_last=node_above("r.last_seq"),
    forever=str(FOREVER),
    max_depth=str(MAX_DEPTH),
)
"""Each write grant with the grants on its path, or on a folder above it, that were open at the same time.

`up` says how many folders above. Two spans meet where the node of the other one is inside the span, or where it is
outside, on the way down to one of its ends or of an open span, and the other one lasts long enough. So the index
`grants_spans` answers with a few look-ups, and reads few other rows.
"""

OVERLAPPING_WRITES = fill(
    """
    overlapping_writes AS (
        SELECT
            g.ledger, max(g.from_seq, w.from_seq) AS seq, 'overlapping_write' AS what,
            CASE WHEN g.from_seq > w.from_seq THEN g.pod_name ELSE w.pod_name END AS pod_name,
            g.words || ' of ' || g.pod_name || ' (from seq ' || g.from_seq || ') is within '
                || w.words || ' of ' || w.pod_name || ' (from seq ' || w.from_seq || ')' AS detail
        FROM meeting AS m
            JOIN scope_rules AS g ON g.rule = m.rule
            JOIN scope_rules AS w ON w.rule = m.other
        WHERE w.permission = 'write' AND w.from_seq <> g.from_seq
            AND (w.recursive = 1 OR m.up <= 1) AND (m.up > 0 OR w.from_seq < g.from_seq)
            AND NOT {descends} AND NOT {ascends}
    )
    """,
    descends=descends("g", "w"),
    ascends=descends("w", "g"),
)
"""The write grants that met, of pods neither of which descends from the other.

Two grants on the same path meet twice, once from each side: `m.up > 0 OR …` keeps one of these.
"""

WIDER_THAN_PARENT = fill(
    """
    wider_than_parent AS (
        SELECT
            t.ledger, t.from_seq AS seq, 'wider_than_parent' AS what, t.pod_name,
            g.words || ' is more than ' || p.pod_name || ' was lent' AS detail
        FROM tenure_parents AS t
            JOIN tenures AS p ON p.rowid = t.parent
            JOIN scope_rules AS g ON g.ledger = t.ledger AND g.pod_name = t.pod_name AND g.from_seq = t.from_seq
        WHERE EXISTS (
                SELECT 1 FROM events AS e
                WHERE e.ledger = t.ledger AND e.seq = t.from_seq AND e.{delegation})
            AND NOT EXISTS (
                SELECT 1 FROM scope_rules AS w
                WHERE w.ledger = p.ledger AND w.pod_name = p.pod_name AND w.from_seq = p.from_seq
                    AND (w.permission = 'write' OR g.permission = 'read')
                    AND {covers}
                    AND (w.recursive = 1 OR (g.recursive = 0 AND g.path = w.path)))
    )
    """,
    delegation=DELEGATION,
    covers=covers("w", "g.path"),
)
"""The rules that no single rule of the parent covers; a tenure that a report revived repeats an older delegation."""

OTHER_PROCESS = """\
other_process AS (
    SELECT
        ledger, seq, 'other_process' AS what, pod_name,
        kind || ' by process ' || sender_pid || ' of user ' || sender_uid
            || coalesce(', where ' || sender_pod || ' is process ' || (
                SELECT t.pid FROM tenures AS t
                WHERE t.ledger = e.ledger AND t.pod_name = e.sender_pod AND t.from_seq < e.seq
                ORDER BY t.from_seq DESC LIMIT 1), '') AS detail
    FROM (
        SELECT *, CASE kind WHEN 'scope_sub_delegated' THEN parent_pod ELSE pod_name END AS sender_pod
        FROM event_log WHERE sender_relation = 'other'
    ) AS e
)"""
"""The reports from a process that was neither the speaking pod's, as it was last spawned, nor a descendant of it."""

RELATIVE_PATH = fill(
    """
    relative_path AS (
        -- The nested calls of replace escape control characters, so that no text can steer a terminal.
        SELECT p.ledger, p.from_seq AS seq, 'relative_path' AS what, p.pod_name, p.detail
        FROM (
            SELECT
                ledger,
                pod_name,
                from_seq,
                'socket ' || {socket} AS detail
            FROM tenures WHERE socket_path <> '' AND substr(socket_path, 1, 1) <> '/'
            UNION ALL
            SELECT ledger, pod_name, from_seq, words
            FROM scope_rules WHERE substr(path, 1, 1) <> '/'
        ) AS p
            JOIN events AS e ON e.ledger = p.ledger AND e.seq = p.from_seq
        WHERE e.{delegation}
    )
    """,
    socket=one_line("socket_path"),
    delegation=DELEGATION,
)
"""The sockets and targets that were delegated as relative paths: they name another place in each folder."""

REUSED_NUMBER = """\
reused_number AS (
    SELECT
        n.ledger, n.seq, 'reused_number' AS what, e.pod_name,
        e.kind || coalesce(' by process ' || e.pid, '') || ' claims the number ' || e.sequence || ' of ' || e.source
            || ', as seq ' || n.first_seq || ' did with another id' AS detail
    FROM (
        SELECT ledger, min(seq) AS seq, min(min(seq)) OVER (PARTITION BY ledger, source, sequence) AS first_seq
        FROM events WHERE source IS NOT NULL
        GROUP BY ledger, source, sequence, stamp_id
    ) AS n
        JOIN events AS e ON e.ledger = n.ledger AND e.seq = n.seq
    WHERE n.seq > n.first_seq
)"""
"""The emissions whose number another one of the same stream had before: somebody may have guessed it."""

ANOMALIES = fill(
    """
    CREATE VIEW anomalies AS
    -- What an audit looks at first: one row per anomaly.
    WITH RECURSIVE {meetings},
    {odd_outcomes},
    {orphans},
    {overlapping_writes},
    {wider_than_parent},
    {other_process},
    {relative_path},
    {reused_number},
    found AS (
        SELECT * FROM odd_outcomes
        UNION ALL SELECT * FROM orphans
        UNION ALL SELECT * FROM overlapping_writes
        UNION ALL SELECT * FROM wider_than_parent
        UNION ALL SELECT * FROM other_process
        UNION ALL SELECT * FROM relative_path
        UNION ALL SELECT * FROM reused_number
    )
    SELECT
        ledger,
        seq,
        {recorded_at} AS recorded_at,
        what,
        pod_name,
        detail
    FROM found
    """,
    meetings=MEETINGS,
    odd_outcomes=ODD_OUTCOMES,
    orphans=ORPHANS,
    overlapping_writes=OVERLAPPING_WRITES,
    wider_than_parent=WIDER_THAN_PARENT,
    other_process=OTHER_PROCESS,
    relative_path=RELATIVE_PATH,
    reused_number=REUSED_NUMBER,
    recorded_at=recorded_at("found.ledger", "found.seq"),
)

VIEWS = {
    "event_log": EVENT_LOG,
    "tenure_parents": TENURE_PARENTS,
    "scope_rules": SCOPE_RULES,
    "live_pods": LIVE_PODS,
    "pod_history": POD_HISTORY,
    "write_holders": WRITE_HOLDERS,
    "notifications": NOTIFICATIONS,
    "gaps": GAPS,
    "anomalies": ANOMALIES,
}


def upgrade() -> None:
    for statement in VIEWS.values():
        op.get_bind().exec_driver_sql(statement)  # `op.execute` would take `:name` in a text for a parameter


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
