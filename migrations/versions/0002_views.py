# ruff: noqa: E501 - the SQL stands as it was made
"""The views: the ledger for whoever asks it in SQL.

Frozen: this file states its own SQL and imports nothing of podledger.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = (
    r"""CREATE VIEW event_log AS
    -- the log: one row an event, as the ledger took it
    SELECT
        ledger,
        seq,
        strftime('%Y-%m-%dT%H:%M:%S', ((recorded_us) - ((recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((recorded_us) % 1000000 + 1000000) % 1000000) AS recorded_at,
        kind,
        pod_name,
        outcome,
        CASE WHEN text IS NOT NULL THEN replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(text, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(text) > 4096 THEN printf('… (%,d more characters)', length(text) - 4096) END, '') END AS detail,
        evidence,
        parent_pod,
        pid AS sender_pid,
        uid AS sender_uid,
        gid AS sender_gid,
        subject AS incarnation,
        source,
        sequence,
        strftime('%Y-%m-%dT%H:%M:%S', ((sent_us) - ((sent_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((sent_us) % 1000000 + 1000000) % 1000000) AS sent_at,
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
                    rtrim(json_extract(payload, '$.socket_path') || ' ' || coalesce((
                SELECT group_concat(
                    json_extract(rule.value, '$.permission')
                    || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                    || json_extract(rule.value, '$.target'), ' ')
                FROM json_each(payload, '$.scope') AS rule WHERE rule.type = 'object'), ''))
                WHEN 'scope_sub_delegated' THEN
                    rtrim(json_extract(payload, '$.sub_socket') || ' ' || coalesce((
                SELECT group_concat(
                    json_extract(rule.value, '$.permission')
                    || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                    || json_extract(rule.value, '$.target'), ' ')
                FROM json_each(payload, '$.scope') AS rule WHERE rule.type = 'object'), ''))
            END END AS text,
            CASE kind
                WHEN 'pod_spawned' THEN ledger
                WHEN 'scope_sub_delegated' THEN
                    CASE WHEN json_valid(payload) THEN json_extract(payload, '$.parent_pod') END
            END AS parent_pod
        FROM events
    )""",
    r"""CREATE VIEW live_pods AS
    -- the registry now: one row a pod believed alive
    SELECT
        t.ledger,
        t.pod_name,
        t.parent_pod,
        coalesce((
            WITH RECURSIVE up (depth, pod_name, from_seq, source, parent_pod, until_seq, line) AS (
                SELECT 0, t.pod_name, t.from_seq, t.source, t.parent_pod, t.until_seq, '/' || t.from_seq || '/'
                UNION ALL
                SELECT up.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq,
                    '/' || p.from_seq || up.line
                FROM up JOIN tenures AS p ON p.ledger = t.ledger AND p.incarnation = up.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.incarnation = up.source)
                WHERE up.source IS NOT NULL AND up.depth < 1000 AND instr(up.line, '/' || p.from_seq || '/') = 0
                UNION ALL
                SELECT up.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq,
                    '/' || p.from_seq || up.line
                FROM up JOIN tenures AS p ON p.ledger = t.ledger AND p.pod_name = up.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.pod_name = up.parent_pod AND n.from_seq < up.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > up.from_seq)
                WHERE up.source IS NULL AND up.depth < 1000 AND instr(up.line, '/' || p.from_seq || '/') = 0
            )
            SELECT up.pod_name FROM up WHERE up.depth > 0 AND up.until_seq IS NULL ORDER BY up.depth LIMIT 1
        ), t.ledger) AS under,
        t.from_seq,
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq) AS since,
        coalesce((
                SELECT group_concat(
                    json_extract(rule.value, '$.permission')
                    || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                    || json_extract(rule.value, '$.target'), ' ')
                FROM json_each(t.scope) AS rule WHERE rule.type = 'object'), '') AS scope,
        t.socket_path,
        coalesce(t.callback_address, CASE WHEN t.source IS NULL THEN coalesce(
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
                WHERE d.ledger = t.ledger AND d.subject = t.source AND d.subject IS NOT NULL AND d.kind IN ('pod_spawned', 'scope_sub_delegated')
                ORDER BY d.seq LIMIT 1
            ) END, '') AS callback_address,
        t.incarnation,
        t.opened_evidence AS evidence
    FROM ledgers AS l CROSS JOIN tenures AS t
    WHERE t.ledger = l.name AND t.node = 0""",
    r"""CREATE VIEW pod_history AS
    -- every tenure, open or over: one row for each time that a pod stood in the registry
    SELECT
        t.ledger,
        t.pod_name,
        t.from_seq,
        t.until_seq,
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq) AS since,
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.until_seq) AS until,
        (SELECT e.kind FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq) AS opened_by,
        t.opened_evidence,
        t.closed_by,
        coalesce(t.confirmed_evidence, t.closed_evidence) AS closed_evidence,
        t.confirmed_seq,
        t.parent_pod,
        coalesce((
                SELECT group_concat(
                    json_extract(rule.value, '$.permission')
                    || CASE json_extract(rule.value, '$.recursive') WHEN 0 THEN '-here:' ELSE ':' END
                    || json_extract(rule.value, '$.target'), ' ')
                FROM json_each(t.scope) AS rule WHERE rule.type = 'object'), '') AS scope,
        t.socket_path,
        t.incarnation,
        t.source
    FROM tenures AS t""",
    r"""CREATE VIEW write_holders AS
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
        FROM line JOIN tenures AS p ON p.ledger = line.ledger AND p.incarnation = line.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = line.ledger AND n.incarnation = line.source)
        WHERE line.source IS NOT NULL AND line.depth < 1000 AND instr(line.tenures, '/' || p.from_seq || '/') = 0
        UNION ALL
        SELECT
            line.ledger, line.pod_name, line.from_seq, line.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod,
            p.pod_name || '/' || line.chain, '/' || p.from_seq || line.tenures
        FROM line JOIN tenures AS p ON p.ledger = line.ledger AND p.pod_name = line.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = line.ledger AND n.pod_name = line.parent_pod AND n.from_seq < line.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > line.from_seq)
        WHERE line.source IS NULL AND line.depth < 1000 AND instr(line.tenures, '/' || p.from_seq || '/') = 0
    ),
    whole AS (
        SELECT ledger, pod_name, from_seq, chain, tenures, max(depth) FROM line GROUP BY ledger, pod_name, from_seq
    ),
    lent AS (
        SELECT
            g.ledger, g.pod_name, g.from_seq, g.position,
            max((g.path = d.path OR (
                substr(g.path, 1, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END)) = CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END
                AND (d.recursive = 1 OR instr(substr(g.path, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END) + 1), '/') = 0)
                AND (d.path <> '.' OR substr(g.path, 1, 1) <> '/')
                AND substr(g.path, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END) + 1) || '/' NOT LIKE '../%'))) AS wholly,
            group_concat(d.pod_name || ':' || d.path, ' ') AS lent_on
        FROM line
            JOIN grants AS d ON d.ledger = line.ledger AND d.pod_name = line.pod_name AND d.from_seq = line.from_seq
            JOIN grants AS g ON g.ledger = line.ledger AND g.pod_name = line.above_pod AND g.from_seq = line.above
        WHERE line.depth > 0 AND g.until_seq IS NULL AND d.permission = 'write' AND g.permission = 'write'
            AND ((g.path = d.path OR (
                substr(g.path, 1, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END)) = CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END
                AND (d.recursive = 1 OR instr(substr(g.path, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END) + 1), '/') = 0)
                AND (d.path <> '.' OR substr(g.path, 1, 1) <> '/')
                AND substr(g.path, length(CASE d.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE d.path || '/' END) + 1) || '/' NOT LIKE '../%')) OR (d.path = g.path OR (
                substr(d.path, 1, length(CASE g.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE g.path || '/' END)) = CASE g.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE g.path || '/' END
                AND (g.recursive = 1 OR instr(substr(d.path, length(CASE g.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE g.path || '/' END) + 1), '/') = 0)
                AND (g.path <> '.' OR substr(d.path, 1, 1) <> '/')
                AND substr(d.path, length(CASE g.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE g.path || '/' END) + 1) || '/' NOT LIKE '../%')))
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
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = g.ledger AND e.seq = g.from_seq) AS since,
        g.path,
        rtrim(g.path, '/') || '/' AS prefix,
        whole.tenures
    FROM whole
        JOIN grants AS g ON g.ledger = whole.ledger AND g.pod_name = whole.pod_name AND g.from_seq = whole.from_seq
        LEFT JOIN lent ON lent.ledger = g.ledger AND lent.pod_name = g.pod_name
            AND lent.from_seq = g.from_seq AND lent.position = g.position
    WHERE g.permission = 'write'""",
    r"""CREATE VIEW notifications AS
    -- what agents are told: one row a line; a consumer has read those up to its cursor in the table consumers
    SELECT
        ledger,
        seq,
        strftime('%Y-%m-%dT%H:%M:%S', ((recorded_us) - ((recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((recorded_us) % 1000000 + 1000000) % 1000000) AS recorded_at,
        kind,
        pod_name,
        'Pod `' || replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(pod_name, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(pod_name) > 4096 THEN printf('… (%,d more characters)', length(pod_name) - 4096) END, '') || '` ' || CASE kind
            WHEN 'turn_ended' THEN 'finished a turn.'
            WHEN 'shut_down' THEN 'has stopped.'
            ELSE 'reported an error: ' || replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(CASE WHEN json_valid(payload) THEN json_extract(payload, '$.message') END, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(CASE WHEN json_valid(payload) THEN json_extract(payload, '$.message') END) > 4096 THEN printf('… (%,d more characters)', length(CASE WHEN json_valid(payload) THEN json_extract(payload, '$.message') END) - 4096) END, '')
        END AS line,
        outcome
    FROM events
    WHERE kind IN ('turn_ended', 'errored', 'shut_down') AND NOT (kind = 'shut_down' AND outcome = 'duplicate')
        AND payload <> '{}'""",
    r"""CREATE VIEW gaps AS
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
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = ordered.ledger AND e.seq = ordered.after_seq) AS after_at,
        seq AS before_seq,
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = ordered.ledger AND e.seq = ordered.seq) AS before_at
    FROM ordered
    WHERE sequence > before + 1""",
    r"""CREATE VIEW anomalies AS
    -- what an audit looks at first: one row each
    WITH RECURSIVE reach (ledger, pod_name, from_seq, position, last_seq, path, up) AS (
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
    ),
    found AS (
        SELECT
            ledger, seq, outcome AS what, pod_name,
            kind || coalesce(' by process ' || sender_pid, '') || coalesce(': ' || detail, '') AS detail
        FROM event_log
        WHERE outcome IN ('conflict', 'late', 'revived', 'unknown')
        UNION ALL
        SELECT
            ledger, max(from_seq, coalesce(p_until, 0)), 'orphan', pod_name,
            CASE WHEN p_from IS NULL THEN 'its parent ' || parent_pod || ' is not in the registry'
                ELSE 'its parent ' || p_name || ' ended at seq ' || p_until || ' (' || p_closed_by || ')' END
        FROM (
            SELECT t.*, p.pod_name AS p_name, p.from_seq AS p_from, p.until_seq AS p_until, p.closed_by AS p_closed_by FROM ledgers AS l CROSS JOIN tenures AS t LEFT JOIN tenures AS p ON p.ledger = t.ledger AND p.incarnation = t.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.incarnation = t.source)
            WHERE t.ledger = l.name AND t.source IS NOT NULL AND t.node = 0
            UNION ALL
            SELECT t.*, p.pod_name AS p_name, p.from_seq AS p_from, p.until_seq AS p_until, p.closed_by AS p_closed_by FROM ledgers AS l CROSS JOIN tenures AS t LEFT JOIN tenures AS p ON p.ledger = t.ledger AND p.pod_name = t.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.pod_name = t.parent_pod AND n.from_seq < t.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > t.from_seq)
            WHERE t.ledger = l.name AND t.source IS NULL AND t.node = 0
        ) AS t
        WHERE p_until IS NOT NULL OR (p_from IS NULL AND parent_pod <> ledger AND NOT EXISTS (
            SELECT 1 FROM tenures AS n
            WHERE n.ledger = t.ledger AND n.pod_name = t.parent_pod AND n.until_seq IS NULL))
        UNION ALL
        SELECT
            g.ledger, max(g.from_seq, w.from_seq), 'overlapping_write',
            CASE WHEN g.from_seq > w.from_seq THEN g.pod_name ELSE w.pod_name END,
            g.permission || CASE g.recursive WHEN 0 THEN '-here:' ELSE ':' END || replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(g.target, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(g.target) > 4096 THEN printf('… (%,d more characters)', length(g.target) - 4096) END, '') || ' of ' || g.pod_name || ' (from seq ' || g.from_seq || ') is within '
                || w.permission || CASE w.recursive WHEN 0 THEN '-here:' ELSE ':' END || replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(w.target, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(w.target) > 4096 THEN printf('… (%,d more characters)', length(w.target) - 4096) END, '') || ' of ' || w.pod_name || ' (from seq ' || w.from_seq || ')'
        FROM meeting AS m
            JOIN grants AS g ON g.ledger = m.ledger AND g.pod_name = m.pod_name
                AND g.from_seq = m.from_seq AND g.position = m.position
            JOIN grants AS w ON w.ledger = m.ledger AND w.pod_name = m.other_pod
                AND w.from_seq = m.other_from AND w.position = m.other_position
        WHERE w.permission = 'write' AND w.from_seq <> g.from_seq
            AND (w.recursive = 1 OR m.up <= 1) AND (m.up > 0 OR w.from_seq < g.from_seq)
            AND NOT EXISTS (
                WITH RECURSIVE up (pod_name, from_seq, source, parent_pod) AS (
                    SELECT c.pod_name, c.from_seq, c.source, c.parent_pod FROM tenures AS c
                    WHERE c.ledger = g.ledger AND c.pod_name = g.pod_name AND c.from_seq = g.from_seq
                    UNION
                    SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                    FROM up JOIN tenures AS p ON p.ledger = g.ledger AND p.incarnation = up.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = g.ledger AND n.incarnation = up.source)
                    WHERE up.source IS NOT NULL
                    UNION
                    SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                    FROM up JOIN tenures AS p ON p.ledger = g.ledger AND p.pod_name = up.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = g.ledger AND n.pod_name = up.parent_pod AND n.from_seq < up.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > up.from_seq)
                    WHERE up.source IS NULL
                )
                SELECT 1 FROM up WHERE up.from_seq = w.from_seq) AND NOT EXISTS (
                WITH RECURSIVE up (pod_name, from_seq, source, parent_pod) AS (
                    SELECT c.pod_name, c.from_seq, c.source, c.parent_pod FROM tenures AS c
                    WHERE c.ledger = w.ledger AND c.pod_name = w.pod_name AND c.from_seq = w.from_seq
                    UNION
                    SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                    FROM up JOIN tenures AS p ON p.ledger = w.ledger AND p.incarnation = up.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = w.ledger AND n.incarnation = up.source)
                    WHERE up.source IS NOT NULL
                    UNION
                    SELECT p.pod_name, p.from_seq, p.source, p.parent_pod
                    FROM up JOIN tenures AS p ON p.ledger = w.ledger AND p.pod_name = up.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = w.ledger AND n.pod_name = up.parent_pod AND n.from_seq < up.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > up.from_seq)
                    WHERE up.source IS NULL
                )
                SELECT 1 FROM up WHERE up.from_seq = g.from_seq)
        UNION ALL
        SELECT
            t.ledger, t.from_seq, 'wider_than_parent', t.pod_name,
            g.permission || CASE g.recursive WHEN 0 THEN '-here:' ELSE ':' END || replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(substr(substr(json_quote(substr(g.target, 1, 4096)), -1, -2000000000), 2), '\\', char(1)), '\"', '"'), '\u00', '\x'), '\b', '\x08'), '\f', '\x0c'), char(1), '\'), char(127), '\x7f'), char(144), '\x90'), char(155), '\x9b'), char(157), '\x9d'), char(8238), '\u202e') || coalesce(CASE WHEN length(g.target) > 4096 THEN printf('… (%,d more characters)', length(g.target) - 4096) END, '') || ' is more than ' || p_name || ' was lent'
        FROM (
            SELECT t.*, p.pod_name AS p_name, p.from_seq AS p_from, p.until_seq AS p_until, p.closed_by AS p_closed_by FROM ledgers AS l CROSS JOIN tenures AS t LEFT JOIN tenures AS p ON p.ledger = t.ledger AND p.incarnation = t.source AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.incarnation = t.source)
            WHERE t.ledger = l.name AND t.source IS NOT NULL AND EXISTS (SELECT 1 FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq AND e.kind IN ('pod_spawned', 'scope_sub_delegated'))
            UNION ALL
            SELECT t.*, p.pod_name AS p_name, p.from_seq AS p_from, p.until_seq AS p_until, p.closed_by AS p_closed_by FROM ledgers AS l CROSS JOIN tenures AS t LEFT JOIN tenures AS p ON p.ledger = t.ledger AND p.pod_name = t.parent_pod AND p.from_seq = (
                SELECT max(n.from_seq) FROM tenures AS n
                WHERE n.ledger = t.ledger AND n.pod_name = t.parent_pod AND n.from_seq < t.from_seq)
                AND (p.until_seq IS NULL OR p.until_seq > t.from_seq)
            WHERE t.ledger = l.name AND t.source IS NULL AND EXISTS (SELECT 1 FROM events AS e WHERE e.ledger = t.ledger AND e.seq = t.from_seq AND e.kind IN ('pod_spawned', 'scope_sub_delegated'))
        ) AS t
            JOIN grants AS g ON g.ledger = t.ledger AND g.pod_name = t.pod_name AND g.from_seq = t.from_seq
        WHERE t.p_from IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM grants AS w
            WHERE w.ledger = t.ledger AND w.pod_name = t.p_name AND w.from_seq = t.p_from
                AND (w.permission = 'write' OR g.permission = 'read')
                AND (g.path = w.path OR (
                substr(g.path, 1, length(CASE w.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE w.path || '/' END)) = CASE w.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE w.path || '/' END
                AND (w.recursive = 1 OR instr(substr(g.path, length(CASE w.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE w.path || '/' END) + 1), '/') = 0)
                AND (w.path <> '.' OR substr(g.path, 1, 1) <> '/')
                AND substr(g.path, length(CASE w.path WHEN '/' THEN '/' WHEN '.' THEN '' ELSE w.path || '/' END) + 1) || '/' NOT LIKE '../%')) AND (w.recursive = 1 OR (g.recursive = 0 AND g.path = w.path)))
        UNION ALL
        SELECT
            ledger, seq, 'other_process', pod_name,
            kind || ' by process ' || pid || ', where ' || speaker || ' is process ' || known
        FROM (
            SELECT e.*, (
                SELECT CASE o.kind WHEN 'pod_spawned' THEN CASE WHEN json_valid(o.payload) THEN json_extract(o.payload, '$.pid') END END
                FROM tenures AS t JOIN events AS o ON o.ledger = t.ledger AND o.seq = t.from_seq
                WHERE t.ledger = e.ledger AND t.pod_name = e.speaker AND t.from_seq < e.seq AND o.kind IN ('pod_spawned', 'scope_sub_delegated')
                ORDER BY t.from_seq DESC LIMIT 1) AS known
            FROM (
                SELECT *, CASE kind WHEN 'scope_sub_delegated' THEN CASE WHEN json_valid(payload) THEN json_extract(payload, '$.parent_pod') END
                    ELSE pod_name END AS speaker
                FROM events WHERE pid IS NOT NULL AND evidence = 'reported'
            ) AS e
            WHERE (e.ledger, e.speaker) IN (
                SELECT ledger, pod_name FROM events WHERE kind = 'pod_spawned' AND CASE WHEN json_valid(payload) THEN json_extract(payload, '$.pid') END IS NOT NULL)
        )
        WHERE known <> pid
    )
    SELECT
        found.ledger,
        found.seq,
        (SELECT strftime('%Y-%m-%dT%H:%M:%S', ((e.recorded_us) - ((e.recorded_us) % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch') || printf('.%06dZ', ((e.recorded_us) % 1000000 + 1000000) % 1000000) FROM events AS e WHERE e.ledger = found.ledger AND e.seq = found.seq) AS recorded_at,
        found.what,
        found.pod_name,
        found.detail
    FROM found""",
)

VIEWS = ("anomalies", "gaps", "notifications", "write_holders", "pod_history", "live_pods", "event_log")


def upgrade() -> None:
    for statement in UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
