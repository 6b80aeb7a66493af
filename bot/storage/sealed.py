"""Files made small with gzip and, where wanted, readable only for the holder of an age key.

Both directions work in pieces, whatever the size of the file. Encryption needs the package
`pyrage`, which is imported only when it is asked for.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from bot.storage.store import StoreError

Recipient: TypeAlias = object
Identity: TypeAlias = Any
"""pyrage's X25519 and ssh keys, which come without types."""

Progress: TypeAlias = Callable[[float], None]
"""Told the part that is done, 0 to 1. It may raise to stop the work."""

AGE_MAGIC: Final = b"age-encryption.org/v1\n"
GZIP_MAGIC: Final = b"\x1f\x8b"

_PIECE: Final = 256 * 1024
_LEVEL: Final = 6
_WITH_GZIP_HEAD: Final = 31
_YIELD_S: Final = 0.00005


class SealError(StoreError):
    """A file cannot be sealed or opened.

    reason: damaged (cut off or changed), needs_key, wrong_key, not_sealed (neither gzip nor
    age), no_pyrage (the package is missing), bad_recipient, bad_identity.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail, retriable=False)


def _pyrage() -> Any:
    try:
        import pyrage  # type: ignore[import-untyped]
    except ImportError as error:
        raise SealError("no_pyrage", str(error)) from error
    return pyrage


def recipients_of(given: Sequence[str]) -> list[Recipient]:
    """Public keys: each text is one (`age1…`, `ssh-ed25519 …`) or the path of a file of them.

    A file holds one key a line; lines that begin with `#` are comments. Raises SealError.
    """
    found: list[Recipient] = []
    for text in given:
        keys = [text] if text.startswith(("age1", "ssh-")) else _lines(text)
        if not keys:
            raise SealError("bad_recipient", text)
        found += map(_recipient, keys)
    return found


def _lines(path: str) -> list[str]:
    try:
        lines = map(str.strip, Path(path).read_text("utf-8").splitlines())
    except (OSError, ValueError):
        shown = "AGE-SECRET-KEY-…" if path.upper().startswith("AGE-SECRET") else path
        raise SealError("bad_recipient", shown) from None
    return [line for line in lines if line and not line.startswith("#")]


def _recipient(key: str) -> Recipient:
    pyrage = _pyrage()
    kind = pyrage.ssh if key.startswith("ssh-") else pyrage.x25519
    try:
        recipient: Recipient = kind.Recipient.from_str(key)
    except pyrage.RecipientError:
        # Somebody may have given the secret key by mistake: it must not be repeated.
        shown = "AGE-SECRET-KEY-…" if key.upper().startswith("AGE-SECRET") else key[:80]
        raise SealError("bad_recipient", shown) from None
    return recipient


def identities_of(path: Path | None) -> list[Identity]:
    """Secret keys in a file: `AGE-SECRET-KEY-…` lines, or one OpenSSH key without a password.

    None is no key. Raises SealError, in which nothing of the file is repeated.
    """
    if path is None:
        return []
    pyrage = _pyrage()
    try:
        content = path.read_bytes()
        if b"PRIVATE KEY-----" in content:
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = [line.split("#")[0].strip() for line in content.decode().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line]
    except (OSError, ValueError, pyrage.IdentityError):
        raise SealError("bad_identity", str(path)) from None
    if not found:
        raise SealError("bad_identity", str(path))
    return found


def throwaway_identity() -> Identity:
    """A key for one use: with it as one more recipient a sealed file can be read back at once."""
    return _pyrage().x25519.Identity.generate()


def public_key(identity: Identity) -> Recipient:
    recipient: Recipient = identity.to_public()
    return recipient


def seal(
    source: IO[bytes], size: int, out: IO[bytes], recipients: Sequence[Recipient], report: Progress
) -> bytes:
    """Write `source`, small and perhaps encrypted, to `out`; the digest of what was read.

    Raises SealError and OSError.
    """
    packer = _Packer(source, size, report)
    if not recipients:
        while piece := packer.read(_PIECE):
            out.write(piece)
        return packer.digest()
    pyrage = _pyrage()
    writer = _Writer(out.write)
    try:
        pyrage.encrypt_io(packer, writer, list(recipients))
    except (OSError, pyrage.EncryptError) as error:
        # pyrage makes one error of its own from whatever a reader or writer raised.
        raise packer.error or writer.error or SealError("damaged", str(error)) from error
    return packer.digest()


def unseal(
    source: IO[bytes],
    size: int,
    out: Callable[[bytes], object],
    identities: Sequence[Identity],
    report: Progress,
) -> bytes:
    """Give `out` what `seal` was given; its digest. Nothing may be believed before this returns.

    Raises SealError, OSError, and what `out` raises.
    """
    head = source.read(len(AGE_MAGIC))
    source.seek(0)
    reader = _Reader(source, size, report)
    unpacker = _Unpacker(out)
    if head.startswith(GZIP_MAGIC):
        while piece := reader.read(_PIECE):
            unpacker.take(piece)
        return unpacker.finish()
    if head != AGE_MAGIC:
        raise SealError("not_sealed")
    pyrage = _pyrage()
    if not identities:
        raise SealError("needs_key")
    writer = _Writer(unpacker.take)
    try:
        pyrage.decrypt_io(reader, writer, list(identities))
    except (OSError, pyrage.DecryptError) as error:
        if (cause := reader.error or writer.error) is not None:
            raise cause from error
        reason = "wrong_key" if "No matching keys" in str(error) else "damaged"
        raise SealError(reason, str(error)) from error
    return unpacker.finish()


class _Reader:
    """A file that tells how far it was read, and remembers what went wrong."""

    def __init__(self, source: IO[bytes], size: int, report: Progress) -> None:
        self._source = source
        self._size = max(1, size)
        self._report = report
        self._done = 0
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            piece = self._source.read(size)
            self._done += len(piece)
            self._report(min(1.0, self._done / self._size))
        except BaseException as error:
            self.error = error
            raise
        return piece


class _Packer(_Reader):
    """The same, read as gzip."""

    def __init__(self, source: IO[bytes], size: int, report: Progress) -> None:
        super().__init__(source, size, report)
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WITH_GZIP_HEAD)
        self._hash = hashlib.sha256()
        self._ready = b""
        self._at = 0
        self._is_over = False

    def read(self, size: int) -> bytes:
        while self._at >= len(self._ready) and not self._is_over:
            piece = super().read(_PIECE)
            self._hash.update(piece)
            self._is_over = not piece
            self._ready = self._zip.flush() if self._is_over else self._zip.compress(piece)
            self._at = 0
        given = self._ready[self._at : self._at + size]
        self._at += len(given)
        return given

    def digest(self) -> bytes:
        return self._hash.digest()


class _Writer:
    """What pyrage writes to. It lets other threads have their turn at every piece.

    pyrage works under the interpreter's lock, 8 KiB at a time; the event loop would wait.
    """

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self.error: BaseException | None = None

    def write(self, piece: bytes) -> int:
        try:
            self._take(piece)
        except BaseException as error:
            self.error = error
            raise
        time.sleep(_YIELD_S)
        return len(piece)

    def flush(self) -> None:
        return


class _Unpacker:
    def __init__(self, out: Callable[[bytes], object]) -> None:
        self._out = out
        self._zip = zlib.decompressobj(_WITH_GZIP_HEAD)
        self._hash = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        while piece:
            try:
                content = self._zip.decompress(piece, _PIECE)
            except zlib.error as error:
                raise SealError("damaged", str(error)) from error
            if self._zip.unused_data:
                raise SealError("damaged", "something follows the end")
            self._hash.update(content)
            self._out(content)
            piece = self._zip.unconsumed_tail

    def finish(self) -> bytes:
        while not self._zip.eof and (content := self._zip.decompress(b"", _PIECE)):
            self._hash.update(content)
            self._out(content)
        if not self._zip.eof:
            raise SealError("damaged", "its end is missing")
        return self._hash.digest()
