"""The views: the ledger for whoever asks it in SQL, in human times and words, one row per thing.

Only the migrations create them; a test compares what they create with what stands here. `docs/sql.md` tells what each
column means. SQLite 3.37 or newer.
"""

from __future__ import annotations

from typing import Final

_STEERING: Final = (0x7F, 0x90, 0x9B, 0x9D, 0x202E)
"""What can steer a terminal beside the characters that JSON escapes: DEL, DCS, CSI, OSC, right-to-left override."""

_SHOWN: Final = 4096
_DELEGATION: Final = "kind IN ('pod_spawned', 'scope_sub_delegated')"


def _time(microseconds: str) -> str:
    """A time as RFC 3339 with six decimals; whole microseconds since 1970, before it too."""
    part = f"(({microseconds}) % 1000000 + 1000000) % 1000000"
    seconds = f"(({microseconds}) - {part}) / 1000000"
    return f"strftime('%Y-%m-%dT%H:%M:%S', {seconds}, 'unixepoch') || printf('.%06dZ', {part})"


def _time_of(ledger: str, seq: str) -> str:
    """When the entry `seq` was recorded."""
    us = _time("e.recorded_us")
    return f"(SELECT {us} FROM events AS e WHERE e.ledger = {ledger} AND e.seq = {seq})"


def _line(text: str) -> str:
    r"""A text in one line, as `render` writes it: control characters escaped (`\n`, `\x1b`), long ones cut.

    `json_quote` escapes them; then its quotes go, and the escapes that a reader does not want. 0x01 cannot be in what
    it gives, and stands for a backslash of the text's own meanwhile.
    """
    line = f"substr(substr(json_quote(substr({text}, 1, {_SHOWN})), -1, -2000000000), 2)"
    escapes = (("'\\\\'", "char(1)"), ("'\\\"'", "'\"'"), ("'\\u00'", "'\\x'"), ("'\\b'", "'\\x08'"))
    for old, new in (*escapes, ("'\\f'", "'\\x0c'"), ("char(1)", "'\\'")):
        line = f"replace({line}, {old}, {new})"
    for code in _STEERING:
        line = f"replace({line}, char({code}), '{chr(code).encode('unicode_escape').decode()}')"
    cut = f"CASE WHEN length({text}) > {_SHOWN} THEN printf('… (%,d more characters)', length({text}) - {_SHOWN}) END"
    return f"{line} || coalesce({cut}, '')"


def _field(payload: str, name: str) -> str:
    """A field of a payload; null where the payload was damaged."""
    return f"CASE WHEN json_valid({payload}) THEN json_extract({payload}, '$.{name}') END"


def _rules(scope: str, *, of: str = "") -> str:
    """A scope in words: `write:/srv read-here:/etc`, empty for none."""
    place = f"{scope}, '{of}'" if of else scope
    return f"""coalesce((
            SELECT group_concat(
                json_extract(rule.value, '$.permission')
                || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                || json_extract(rule.value, '$.target'), ' ')
            FROM json_each({place}) AS rule WHERE rule.type = 'object'), '')"""


def _rule(grant: str) -> str:
    """A grant in words."""
    return (
        f"{grant}.permission || CASE {grant}.recursive WHEN 0 THEN '-here:' ELSE ':' END || {_line(f'{grant}.target')}"
    )


def _covers(grant: str, path: str) -> str:
    """Whether a grant reaches a normalised path: its target, and all below or the direct children alone."""
    start = f"CASE {grant}.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE {grant}.path || '/' END"
    rest = f"substr({path}, length({start}) + 1)"
    return f"""({path} = {grant}.path OR (
            substr({path}, 1, length({start})) = {start}
            AND ({grant}.recursive = 1 OR instr({rest}, '/') = 0)
            AND ({grant}.path <> '.' OR substr({path}, 1, 1) <> '/')
            AND {rest} || '/' NOT LIKE '../%'))"""


def _parent(ledger: str, child: str) -> str:
    """The condition that `p` is the parent tenure of `child`, as design and `registry` have it."""
    return f"""p.ledger = {ledger} AND p.incarnation = {child}.source AND p.from_seq = (
            SELECT max(n.from_seq) FROM tenures AS n
            WHERE n.ledger = {ledger} AND n.incarnation = {child}.source)"""


def _named_parent(ledger: str, child: str) -> str:
    """The same for an unstamped delegation: the tenure of the parent named that stood open when the child's opened."""
    return f"""p.ledger = {ledger} AND p.pod_name = {child}.parent_pod AND p.from_seq = (
            SELECT max(n.from_seq) FROM tenures AS n
            WHERE n.ledger = {ledger} AND n.pod_name = {child}.parent_pod AND n.from_seq < {child}.from_seq)
            AND (p.until_seq IS NULL OR p.until_seq > {child}.from_seq)"""


_EVENT_LOG: Final = f"""\
CREATE VIEW event_log AS
-- the log: one row an event, as the ledger took it
SELECT
    ledger,
    seq,
    {_time("recorded_us")} AS recorded_at,
    kind,
    pod_name,
    outcome,
    CASE WHEN text IS NOT NULL THEN {_line("text")} END AS detail,
    evidence,
    parent_pod,
    pid AS sender_pid,
    uid AS sender_uid,
    gid AS sender_gid,
    subject AS incarnation,
    source,
    sequence,
    {_time("sent_us")} AS sent_at,
    stamp_id,
    rules,
    payload,
    digest
FROM (
    SELECT
        *,
        CASE WHEN NOT json_valid(payload) THEN NULL ELSE CASE kind
            WHEN 'errored' THEN json_extract(payload, '$.message')
            WHEN 'pod_unreachable' THEN json_extract(payload, '$.reason')
            WHEN 'pod_reclaimed' THEN json_extract(payload, '$.reason')
            WHEN 'pod_exited' THEN coalesce(
                'code ' || json_extract(payload, '$.exit_code'), 'signal ' || json_extract(payload, '$.signal'))
            WHEN 'pod_spawned' THEN
                rtrim(json_extract(payload, '$.socket_path') || ' ' || {_rules("payload", of="$.scope")})
            WHEN 'scope_sub_delegated' THEN
                rtrim(json_extract(payload, '$.sub_socket') || ' ' || {_rules("payload", of="$.scope")})
        END END AS text,
        CASE kind
            WHEN 'pod_spawned' THEN ledger
            WHEN 'scope_sub_delegated' THEN
                {_field("payload", "parent_pod")}
        END AS parent_pod
    FROM events
)"""

_CALLBACK: Final = f"""coalesce(t.callback_address, CASE WHEN t.source IS NULL THEN coalesce(
        (
            SELECT CASE WHEN p.until_seq IS NULL OR p.until_seq > t.from_seq THEN p.socket_path END
            FROM tenures AS p
            WHERE p.ledger = t.ledger AND p.pod_name = t.parent_pod AND p.from_seq < t.from_seq
            ORDER BY p.from_seq DESC LIMIT 1
        ),
        (
            SELECT p.socket_path FROM tenures AS p
            WHERE p.ledger = t.ledger AND p.pod_name = t.parent_pod AND p.from_seq > t.from_seq
            ORDER BY p.from_seq LIMIT 1
        ))
        ELSE (
            SELECT json_extract(d.payload, CASE d.kind WHEN 'pod_spawned' THEN '$.socket_path' ELSE '$.sub_socket' END)
            FROM events AS d
            WHERE d.ledger = t.ledger AND d.subject = t.source AND d.subject IS NOT NULL AND d.{_DELEGATION}
            ORDER BY d.seq LIMIT 1
        ) END, '')"""

_NEAREST_OPEN: Final = f"""coalesce((
        WITH RECURSIVE up (depth, pod_name, from_seq, source, parent_pod, until_seq, line) AS (
            SELECT 0, t.pod_name, t.from_seq, t.source, t.parent_pod, t.until_seq, '/' || t.from_seq || '/'
            UNION ALL
            SELECT up.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq,
                '/' || p.from_seq || up.line
            FROM up JOIN tenures AS p ON {_parent("t.ledger", "up")}
            WHERE up.source IS NOT NULL AND up.depth < 1000 AND instr(up.line, '/' || p.from_seq || '/') = 0
            UNION ALL
            SELECT up.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq,
                '/' || p.from_seq || up.line
            FROM up JOIN tenures AS p ON {_named_parent("t.ledger", "up")}
            WHERE up.source IS NULL AND up.depth < 1000 AND instr(up.line, '/' || p.from_seq || '/') = 0
        )
        SELECT up.pod_name FROM up WHERE up.depth > 0 AND up.until_seq IS NULL ORDER BY up.depth LIMIT 1
    ), t.ledger)"""

_LIVE_PODS: Final = f"""\
CREATE VIEW live_pods AS
-- the registry now: one row a pod believed alive
SELECT
    t.ledger,
    t.pod_name,
    t.parent_pod,
    {_NEAREST_OPEN} AS under,
    t.from_seq,
    {_time_of("t.ledger", "t.from_seq")} AS since,
    {_rules("t.scope")} AS scope,
    t.socket_path,
    {_CALLBACK} AS callback_address,
    t.incarnation,
    t.opened_evidence AS evidence
FROM ledgers AS l CROSS JOIN tenures AS t
WHERE t.ledger = l.name AND t.node = 0"""

_POD_HISTORY: Final = f"""\
CREATE VIEW pod_history AS
-- every tenure, open or over: one row for each time that a pod stood in the registry
SELECT
    t.ledger,
    t.pod_name,
    t.from_seq,
    t.until_seq,
    {_time_of("t.ledger", "t.from_seq")} AS since,
    {_time_of("t.ledger", "t.until_seq")} AS until,
    (SELECT e.kind FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq) AS opened_by,
    t.opened_evidence,
    t.closed_by,
    coalesce(t.confirmed_evidence, t.closed_evidence) AS closed_evidence,
    t.confirmed_seq,
    t.parent_pod,
    {_rules("t.scope")} AS scope,
    t.socket_path,
    t.incarnation,
    t.source
FROM tenures AS t"""

_WRITE_HOLDERS: Final = f"""\
CREATE VIEW write_holders AS
-- who may write now: one row an open write grant, whether its pod still holds its target, to whom it lent it on
WITH RECURSIVE line (ledger, pod_name, from_seq, depth, above_pod, above, source, parent_pod, chain, tenures) AS (
    SELECT
        t.ledger, t.pod_name, t.from_seq, 0, t.pod_name, t.from_seq, t.source, t.parent_pod,
        t.pod_name, '/' || t.from_seq || '/'
    FROM ledgers AS l CROSS JOIN tenures AS t
    WHERE t.ledger = l.name AND t.node = 0
    UNION ALL
    SELECT
        line.ledger, line.pod_name, line.from_seq, line.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod,
        p.pod_name || '/' || line.chain, '/' || p.from_seq || line.tenures
    FROM line JOIN tenures AS p ON {_parent("line.ledger", "line")}
    WHERE line.source IS NOT NULL AND line.depth < 1000 AND instr(line.tenures, '/' || p.from_seq || '/') = 0
    UNION ALL
    SELECT
        line.ledger, line.pod_name, line.from_seq, line.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod,
        p.pod_name || '/' || line.chain, '/' || p.from_seq || line.tenures
    FROM line JOIN tenures AS p ON {_named_parent("line.ledger", "line")}
    WHERE line.source IS NULL AND line.depth < 1000 AND instr(line.tenures, '/' || p.from_seq || '/') = 0
),
whole AS (
    SELECT ledger, pod_name, from_seq, chain, tenures, max(depth) FROM line GROUP BY ledger, pod_name, from_seq
),
lent AS (
    SELECT
        g.ledger, g.pod_name, g.from_seq, g.position,
        max({_covers("d", "g.path")}) AS wholly,
        group_concat(d.pod_name || ':' || d.path, ' ') AS lent_on
    FROM line
        JOIN grants AS d ON d.ledger = line.ledger AND d.pod_name = line.pod_name AND d.from_seq = line.from_seq
        JOIN grants AS g ON g.ledger = line.ledger AND g.pod_name = line.above_pod AND g.from_seq = line.above
    WHERE line.depth > 0 AND g.until_seq IS NULL AND d.permission = 'write' AND g.permission = 'write'
        AND ({_covers("d", "g.path")} OR {_covers("g", "d.path")})
    GROUP BY g.ledger, g.pod_name, g.from_seq, g.position
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
    {_time_of("g.ledger", "g.from_seq")} AS since,
    g.path,
    rtrim(g.path, '/') || '/' AS prefix,
    whole.tenures
FROM whole
    JOIN grants AS g ON g.ledger = whole.ledger AND g.pod_name = whole.pod_name AND g.from_seq = whole.from_seq
    LEFT JOIN lent ON lent.ledger = g.ledger AND lent.pod_name = g.pod_name
        AND lent.from_seq = g.from_seq AND lent.position = g.position
WHERE g.permission = 'write'"""

_NOTIFICATIONS: Final = f"""\
CREATE VIEW notifications AS
-- what agents are told: one row a line; a consumer has read those up to its cursor in the table consumers
SELECT
    ledger,
    seq,
    {_time("recorded_us")} AS recorded_at,
    kind,
    pod_name,
    'Pod `' || {_line("pod_name")} || '` ' || CASE kind
        WHEN 'turn_ended' THEN 'finished a turn.'
        WHEN 'shut_down' THEN 'has stopped.'
        ELSE 'reported an error: ' || {_line(_field("payload", "message"))}
    END AS line,
    outcome
FROM events
WHERE kind IN ('turn_ended', 'errored', 'shut_down') AND NOT (kind = 'shut_down' AND outcome = 'duplicate')
    AND payload <> '{{}}'"""

_GAPS: Final = f"""\
CREATE VIEW gaps AS
-- what stamped senders sent and the ledger never got: one row a run of missing numbers
WITH heard AS (
    SELECT ledger, source, sequence, min(seq) AS seq, max(CASE WHEN subject = source THEN pod_name END) AS pod_name
    FROM events WHERE source IS NOT NULL
    GROUP BY ledger, source, sequence
),
ordered AS (
    SELECT
        ledger, source, sequence, seq,
        max(pod_name) OVER (PARTITION BY ledger, source) AS pod_name,
        lag(sequence, 1, 0) OVER (PARTITION BY ledger, source ORDER BY sequence) AS before,
        lag(seq) OVER (PARTITION BY ledger, source ORDER BY sequence) AS after_seq
    FROM heard
)
SELECT
    ledger,
    pod_name,
    source,
    before + 1 AS first_missing,
    sequence - 1 AS last_missing,
    sequence - before - 1 AS missing,
    after_seq,
    {_time_of("ordered.ledger", "ordered.after_seq")} AS after_at,
    seq AS before_seq,
    {_time_of("ordered.ledger", "ordered.seq")} AS before_at
FROM ordered
WHERE sequence > before + 1"""


def _descends(child: str, ancestor: str) -> str:
    """Whether the tenure of the grant `child` descends from that of the grant `ancestor`."""
    return f"""EXISTS (
            WITH RECURSIVE up (pod_name, from_seq, source, parent_pod) AS (
                SELECT c.pod_name, c.from_seq, c.source, c.parent_pod FROM tenures AS c
                WHERE c.ledger = {child}.ledger AND c.pod_name = {child}.pod_name AND c.from_seq = {child}.from_seq
                UNION
                SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                FROM up JOIN tenures AS p ON {_parent(f"{child}.ledger", "up")}
                WHERE up.source IS NOT NULL
                UNION
                SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                FROM up JOIN tenures AS p ON {_named_parent(f"{child}.ledger", "up")}
                WHERE up.source IS NULL
            )
            SELECT 1 FROM up WHERE up.from_seq = {ancestor}.from_seq)"""


def _kin(where: str) -> str:
    """Tenures, each beside its parent tenure, whose columns are null where there is none."""
    columns = "t.*, p.pod_name AS p_name, p.from_seq AS p_from, p.until_seq AS p_until, p.closed_by AS p_closed_by"
    source = f"SELECT {columns} FROM ledgers AS l CROSS JOIN tenures AS t LEFT JOIN tenures AS p ON"
    return f"""
        {source} {_parent("t.ledger", "t")}
        WHERE t.ledger = l.name AND t.source IS NOT NULL AND {where}
        UNION ALL
        {source} {_named_parent("t.ledger", "t")}
        WHERE t.ledger = l.name AND t.source IS NULL AND {where}"""


_OPENED_BY_DELEGATION: Final = (
    f"SELECT 1 FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq AND e.{_DELEGATION}"
)
_ODD_OUTCOMES: Final = """\
    SELECT
        ledger, seq, outcome AS what, pod_name,
        kind || coalesce(' by process ' || sender_pid, '') || coalesce(': ' || detail, '') AS detail
    FROM event_log
    WHERE outcome IN ('conflict', 'late', 'revived', 'unknown')"""

_ORPHANS: Final = f"""\
    SELECT
        ledger, max(from_seq, coalesce(p_until, 0)), 'orphan', pod_name,
        CASE WHEN p_from IS NULL THEN 'its parent ' || parent_pod || ' is not in the registry'
            ELSE 'its parent ' || p_name || ' ended at seq ' || p_until || ' (' || p_closed_by || ')' END
    FROM ({_kin("t.node = 0")}
    ) AS t
    WHERE p_until IS NOT NULL OR (p_from IS NULL AND parent_pod <> ledger AND NOT EXISTS (
        SELECT 1 FROM tenures AS n
        WHERE n.ledger = t.ledger AND n.pod_name = t.parent_pod AND n.until_seq IS NULL))"""

_WIDER: Final = f"""\
    SELECT
        t.ledger, t.from_seq, 'wider_than_parent', t.pod_name,
        {_rule("g")} || ' is more than ' || p_name || ' was lent'
    FROM ({_kin("EXISTS (" + _OPENED_BY_DELEGATION + ")")}
    ) AS t
        JOIN grants AS g ON g.ledger = t.ledger AND g.pod_name = t.pod_name AND g.from_seq = t.from_seq
    WHERE t.p_from IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM grants AS w
        WHERE w.ledger = t.ledger AND w.pod_name = t.p_name AND w.from_seq = t.p_from
            AND (w.permission = 'write' OR g.permission = 'read')
            AND {_covers("w", "g.path")} AND (w.recursive = 1 OR (g.recursive = 0 AND g.path = w.path)))"""

_REACH: Final = """\
reach (ledger, pod_name, from_seq, position, last_seq, path, up) AS (
    SELECT ledger, pod_name, from_seq, position, coalesce(until_seq - 1, 9223372036854775807), path, 0
    FROM grants WHERE permission = 'write'
    UNION ALL
    SELECT ledger, pod_name, from_seq, position, last_seq,
        CASE rtrim(path, replace(path, '/', ''))
            WHEN '' THEN '.' WHEN '/' THEN '/'
            ELSE substr(path, 1, length(rtrim(path, replace(path, '/', ''))) - 1) END,
        up + 1
    FROM reach WHERE path NOT IN ('/', '.', '..') AND path NOT LIKE '%/..' AND up < 1000
),
level (bit) AS (
    SELECT 0 UNION ALL SELECT bit + 1 FROM level WHERE 1 << (bit + 1) <= (SELECT max(head_seq) FROM ledgers)
),
meeting (ledger, pod_name, from_seq, position, up, other_pod, other_from, other_position) AS MATERIALIZED (
    SELECT r.ledger, r.pod_name, r.from_seq, r.position, r.up, w.pod_name, w.from_seq, w.position
    FROM reach AS r CROSS JOIN grants AS w
    WHERE w.ledger = r.ledger AND w.path = r.path AND w.node BETWEEN r.from_seq AND r.last_seq
    UNION ALL
    SELECT r.ledger, r.pod_name, r.from_seq, r.position, r.up, w.pod_name, w.from_seq, w.position
    FROM reach AS r CROSS JOIN grants AS w
    WHERE w.ledger = r.ledger AND w.path = r.path AND w.node = 0 AND w.from_seq <= r.last_seq
    UNION ALL
    SELECT r.ledger, r.pod_name, r.from_seq, r.position, r.up, w.pod_name, w.from_seq, w.position
    FROM reach AS r CROSS JOIN level CROSS JOIN grants AS w
    WHERE w.ledger = r.ledger AND w.path = r.path AND w.node = (r.from_seq >> bit | 1) << bit
        AND (r.from_seq >> bit | 1) << bit < r.from_seq AND w.until_seq > r.from_seq
    UNION ALL
    SELECT r.ledger, r.pod_name, r.from_seq, r.position, r.up, w.pod_name, w.from_seq, w.position
    FROM reach AS r CROSS JOIN level CROSS JOIN grants AS w
    WHERE r.last_seq < 9223372036854775807
        AND w.ledger = r.ledger AND w.path = r.path AND w.node = (r.last_seq >> bit | 1) << bit
        AND (r.last_seq >> bit | 1) << bit > r.last_seq AND w.from_seq <= r.last_seq
)"""
"""The write grants that met: of each, the grants on its path and above it that were lent at some time that it was.

A grant's span and another's on one path meet where the other's node is within the span, or is a node of the way down
to either end and its span reaches that far (see `tables.span_node`): a few look-ups, and no more rows than there are
meetings.
"""

_OVERLAPS: Final = f"""\
    SELECT
        g.ledger, max(g.from_seq, w.from_seq), 'overlapping_write',
        CASE WHEN g.from_seq > w.from_seq THEN g.pod_name ELSE w.pod_name END,
        {_rule("g")} || ' of ' || g.pod_name || ' (from seq ' || g.from_seq || ') is within '
            || {_rule("w")} || ' of ' || w.pod_name || ' (from seq ' || w.from_seq || ')'
    FROM meeting AS m
        JOIN grants AS g ON g.ledger = m.ledger AND g.pod_name = m.pod_name
            AND g.from_seq = m.from_seq AND g.position = m.position
        JOIN grants AS w ON w.ledger = m.ledger AND w.pod_name = m.other_pod
            AND w.from_seq = m.other_from AND w.position = m.other_position
    WHERE w.permission = 'write' AND w.from_seq <> g.from_seq
        AND (w.recursive = 1 OR m.up <= 1) AND (m.up > 0 OR w.from_seq < g.from_seq)
        AND NOT {_descends("g", "w")} AND NOT {_descends("w", "g")}"""

_OTHER_PROCESS: Final = f"""\
    SELECT
        ledger, seq, 'other_process', pod_name,
        kind || ' by process ' || pid || ', where ' || speaker || ' is process ' || known
    FROM (
        SELECT e.*, (
            SELECT CASE o.kind WHEN 'pod_spawned' THEN {_field("o.payload", "pid")} END
            FROM tenures AS t JOIN events AS o ON o.ledger = t.ledger AND o.seq = t.from_seq
            WHERE t.ledger = e.ledger AND t.pod_name = e.speaker AND t.from_seq < e.seq AND o.{_DELEGATION}
            ORDER BY t.from_seq DESC LIMIT 1) AS known
        FROM (
            SELECT *, CASE kind WHEN 'scope_sub_delegated' THEN {_field("payload", "parent_pod")}
                ELSE pod_name END AS speaker
            FROM events WHERE pid IS NOT NULL AND evidence = 'reported'
        ) AS e
        WHERE (e.ledger, e.speaker) IN (
            SELECT ledger, pod_name FROM events WHERE kind = 'pod_spawned' AND {_field("payload", "pid")} IS NOT NULL)
    )
    WHERE known <> pid"""

_ANOMALIES: Final = f"""\
CREATE VIEW anomalies AS
-- what an audit looks at first: one row each
WITH RECURSIVE {_REACH},
found AS (
{_ODD_OUTCOMES}
    UNION ALL
{_ORPHANS}
    UNION ALL
{_OVERLAPS}
    UNION ALL
{_WIDER}
    UNION ALL
{_OTHER_PROCESS}
)
SELECT
    found.ledger,
    found.seq,
    {_time_of("found.ledger", "found.seq")} AS recorded_at,
    found.what,
    found.pod_name,
    found.detail
FROM found"""

VIEWS: Final = {
    "event_log": _EVENT_LOG,
    "live_pods": _LIVE_PODS,
    "pod_history": _POD_HISTORY,
    "write_holders": _WRITE_HOLDERS,
    "notifications": _NOTIFICATIONS,
    "gaps": _GAPS,
    "anomalies": _ANOMALIES,
}
"""The views by name, in the order in which they are made."""
