"""Proof that the record is what it was: the certificate, and the notes that it is held to."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podledger.cli.parser import Commands
from podledger.cli.reading import add_at, moment_of
from podledger.core.text import pluralize

if TYPE_CHECKING:
    from podledger.core.problem import Problem
    from podledger.integrity.notes import Note, SignedNote
    from podledger.integrity.verify import VerifyResult
    from podledger.ledger import Ledger


def add_commands(commands: Commands) -> None:
    """verify, digest."""
    verify = commands.add("verify", run_verify, "the certificate: is everything as it was written?")
    verify.add_argument(
        "--expect",
        metavar="SEQ:DIGEST",
        action="append",
        default=[],
        help="what `digest` printed before, kept elsewhere; as often as need be",
    )
    verify.add_argument("--expect-note", metavar="FILE", help="a signed note, as `digest --key` printed it")
    verify.add_argument("--public-key", metavar="FILE", help="the Ed25519 key that signed it, in PEM form")

    digest = commands.add("digest", run_digest, "a note of the log, to be kept elsewhere: SEQ:DIGEST")
    add_at(digest)
    digest.add_argument("--key", metavar="FILE", help="sign the note with this Ed25519 private key, in PEM form")


def run_digest(args: Namespace) -> None:
    """Print a note; with a key, a signed one."""
    import time

    from podledger.cli.output import print_json
    from podledger.cli.session import with_ledger

    key = None
    if args.key:
        from podledger.integrity import signing

        key = signing.read_private_key(args.key)

    async def work(ledger: Ledger) -> tuple[str, Note]:
        return ledger.name, await ledger.note(moment_of(args.at))

    name, note = with_ledger(args, work)
    if key is not None:
        print_json(signing.sign(name, note, key, time.time_ns() // 1000).as_json())
    elif args.json:
        print_json({"ledger": name, **note._asdict()})
    else:
        print(note)


def run_verify(args: Namespace) -> int:
    """Print the certificate; 1 where it names a problem."""
    from podledger.cli.output import print_json, print_line, print_table

    certificate = _certificate(args)
    if args.json:
        print_json(certificate.as_json())
    elif certificate.ok:
        print_line(f"whole: {pluralize(certificate.events, 'event')}, head digest {certificate.head_digest}", "green")
    else:
        print_table(("check", "seq", "problem"), certificate.problems)
    return 0 if certificate.ok else 1


def _certificate(args: Namespace) -> VerifyResult:
    """The certificate, also of what cannot be opened."""
    from podledger.cli.output import progress
    from podledger.cli.session import database_path, with_ledger
    from podledger.core.errors import LedgerNotFoundError, SchemaError, StorageError
    from podledger.core.problem import Problem
    from podledger.integrity.notes import parse_note
    from podledger.integrity.verify import VerifyResult, damage, is_misnamed

    path = database_path(args)
    expected = [parse_note(text) for text in args.expect]
    signed, objections = _signed_note(args)

    async def work(ledger: Ledger) -> VerifyResult:
        with progress("verify") as told:
            found = await ledger.verify(told, expected=[*expected, *([signed.note] if signed else [])])
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
    """The signed note that is to hold, if one is given, and what is wrong with it."""
    if args.expect_note is None and args.public_key is None:
        return None, []
    from podledger.core.errors import UsageError
    from podledger.core.problem import Problem
    from podledger.integrity import signing
    from podledger.integrity.notes import parse_signed_note

    if args.expect_note is None or args.public_key is None:
        hint = "the key must come from where you trust it, and not with the note"
        raise UsageError("--expect-note and --public-key go together", hint=hint)
    key = signing.read_public_key(args.public_key)
    note = parse_signed_note(signing.read_small(args.expect_note).decode(errors="replace"))
    if signing.is_signed_by(note, key):
        return note, []
    return note, [Problem("expect", note.seq, "the note was not signed with that key, or was changed since")]
