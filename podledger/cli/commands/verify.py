"""`verify`: check that no part of the ledger was altered."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import print_json, print_line, print_table
from podledger.cli.parser import Parser
from podledger.cli.session import database_path, with_ledger
from podledger.cli.terminal import GREEN, progress
from podledger.core.errors import LedgerNotFoundError, SchemaError, StorageError, UsageError
from podledger.core.problem import Problem
from podledger.core.text import escape, pluralize
from podledger.integrity import signing
from podledger.integrity.notes import SignedNote, parse_note, parse_signed_note
from podledger.integrity.tree import TreeResult, verify_tree
from podledger.integrity.verify import VerifyResult, damage, is_misnamed
from podledger.ledger import Ledger
from podledger.store.database import locate


def add_arguments(parser: Parser) -> None:
    """Add the digests that the log must still have."""
    parser.add_argument(
        "--expect",
        metavar="SEQ:DIGEST",
        action="append",
        default=[],
        help="a digest that `digest` printed before and that you kept elsewhere; repeat it for several",
    )
    parser.add_argument("--expect-note", metavar="FILE", help="a signed note that `digest --key` printed")
    parser.add_argument(
        "--tree",
        metavar="DB",
        nargs="+",
        help="verify all ledgers of these databases, and compare each child's log with its parents' logs",
    )
    parser.add_argument("--public-key", metavar="FILE", help="Ed25519 key that signed the note, in PEM form")


def run(args: Namespace) -> int:
    """Print the result; return 1 if there is a problem."""
    if args.tree:
        return _run_tree(args)
    result = _verified(args)
    if args.json:
        print_json(result.as_json())
    elif result.ok:
        print_line(verified_text(result), GREEN)
    else:
        print_table(("check", "seq", "problem"), result.problems, empty="no problem")
    return 0 if result.ok else 1


def _run_tree(args: Namespace) -> int:
    if args.expect or args.expect_note or args.public_key or args.ledger:
        hint = "verify one ledger with them, and the tree without"
        raise UsageError("--tree goes with none of --ledger, --expect, --expect-note and --public-key", hint=hint)
    paths = [*([] if args.db is None else [args.db]), *args.tree]
    with progress("verify") as update:
        result = verify_tree([locate(path) for path in paths], update)
    if args.json:
        print_json(result.as_json())
    else:
        _print_tree(result)
    return 0 if result.ok else 1


def _print_tree(result: TreeResult) -> None:
    for _, verified in result.ledgers:
        if verified.ok:
            print_line(f"{escape(verified.ledger)}: {verified_text(verified)}", GREEN)
    found: list[tuple[object, ...]] = []
    for place, verified in result.ledgers:
        found += [(place, verified.ledger, *problem) for problem in verified.problems]
    found += [(None, None, *problem) for problem in result.problems]
    if found:
        print_table(("database", "ledger", "check", "seq", "problem"), found, empty="")
    elif result.compared:
        print_line(f"{pluralize(result.compared, 'relay')} compared: each fits", GREEN)
    for name in result.absent:
        print_line(f"not compared: no database holds the ledger {escape(name)}, which relays name")
    for name in result.ambiguous:
        print_line(f"ambiguous: several databases hold a ledger {escape(name)}; a relay fits if one of them does")


def verified_text(result: VerifyResult) -> str:
    """Return the line that reports a success."""
    return f"verified: {pluralize(result.events, 'event')}, head digest {result.head_digest}"


def _verified(args: Namespace) -> VerifyResult:
    """Return the result, also for a database that cannot be opened."""
    path = database_path(args)
    expected = [parse_note(text) for text in args.expect]
    signed, objections = _signed_note(args)

    async def work(ledger: Ledger) -> VerifyResult:
        with progress("verify") as update:
            found = await ledger.verify(update, expected=[*expected, *([signed.note] if signed else [])])
        if signed and signed.ledger != ledger.name:
            objections.append(Problem("expect", None, f"the note is of the ledger {signed.ledger!r}"))
        return found._replace(problems=(*objections, *found.problems))

    try:
        return with_ledger(args, work)
    except SchemaError as error:
        problems: tuple[Problem, ...] = (Problem("schema", None, error.message),)
    except StorageError as error:
        problems = (Problem("file", None, error.message), *damage(path, args.ledger))
    except LedgerNotFoundError as error:
        if not path.is_file() or is_misnamed(path, args.ledger):
            raise
        problems = (Problem("ledger", None, error.message), *damage(path, args.ledger))
    return VerifyResult(args.ledger or "", 0, "", (*objections, *problems))


def _signed_note(args: Namespace) -> tuple[SignedNote | None, list[Problem]]:
    """Return the signed note that the log must match, if one is given, and its problems."""
    if args.expect_note is None and args.public_key is None:
        return None, []
    if args.expect_note is None or args.public_key is None:
        hint = "the key must come from a place that you trust, and not with the note"
        raise UsageError("--expect-note and --public-key go together", hint=hint)
    key = signing.read_public_key(args.public_key)
    note = parse_signed_note(signing.read_small(args.expect_note).decode(errors="replace"))
    if signing.is_signed_by(note, key):
        return note, []
    return note, [Problem("expect", note.seq, "the note was signed with another key, or altered afterwards")]
