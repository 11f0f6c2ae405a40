"""Sign notes with Ed25519 keys. This needs the package `cryptography`, which `podledger[sign]` installs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podledger.core.errors import MissingPackageError, StorageError, UsageError
from podledger.core.times import timestamp
from podledger.integrity.notes import Note, SignedNote

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_FILE_BYTES: Final = 64 << 10
"""The size of the largest key or note file."""


def sign(ledger: str, note: Note, key: Ed25519PrivateKey, now_us: int) -> SignedNote:
    """Return the note of `ledger`, signed; `now_us` is the time in microseconds since 1970."""
    public = key.public_key().public_bytes_raw().hex()
    unsigned = SignedNote(ledger, note.seq, note.digest, timestamp(now_us), public, "")
    return unsigned._replace(signature=key.sign(unsigned.text()).hex())


def is_signed_by(note: SignedNote, key: Ed25519PublicKey) -> bool:
    """Return whether the note was signed with the private half of `key`, and not changed since."""
    from cryptography.exceptions import InvalidSignature

    if note.public_key != key.public_bytes_raw().hex():
        return False
    try:
        key.verify(bytes.fromhex(note.signature), note.text())
    except (InvalidSignature, ValueError):
        return False
    return True


def read_private_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Return the Ed25519 private key in a PEM file.

    Raises:
        MissingPackageError: `cryptography` is not installed.
        UsageError: the file holds no such key, or an encrypted one.
        StorageError: it cannot be read.
    """
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(read_small(path), password=None)
    except TypeError as error:
        hint = "decrypt it first, for example with `openssl pkey`"
        raise UsageError(f"{os.fspath(path)}: the key is encrypted", hint=hint) from error
    except ValueError as error:
        raise _no_key(path, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "private")
    return key


def read_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """Return the Ed25519 public key in a PEM file.

    Raises:
        MissingPackageError: `cryptography` is not installed.
        UsageError: the file holds no such key.
        StorageError: it cannot be read.
    """
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(read_small(path))
    except ValueError as error:
        raise _no_key(path, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "public")
    return key


def read_small(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a small file.

    Raises:
        StorageError: it cannot be read, or is too large.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StorageError(
            f"{os.fspath(path)}: {error.strerror or error}", hint="give a file that can be read"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise StorageError(f"{os.fspath(path)} is larger than {MAX_FILE_BYTES} bytes", hint="give a key or a note")
    return data


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        hint = "install it with `pip install 'podledger[sign]'`"
        raise MissingPackageError("signatures need the package cryptography", hint=hint) from error
    return serialization


def _no_key(path: str | os.PathLike[str], half: str) -> UsageError:
    hint = "create one with `openssl genpkey -algorithm ed25519`, and its public half with `openssl pkey -pubout`"
    return UsageError(f"{os.fspath(path)} holds no Ed25519 {half} key in PEM form", hint=hint)
