"""The lines of a file, a pipe or standard input: gzipped or not, whatever its name, and read once."""

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

MAX_LINE_BYTES = 16 * 1024 * 1024
_CHUNK = 1 << 16
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it in front of UTF-8


class FileError(RuntimeError):
    """The file cannot be opened, or not be read to its end; the message is one line."""


class EventFile:
    """A file that is read once, from its first line to its last. `-` is standard input.

    Raises FileError if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        with ExitStack() as stack:
            try:
                raw = _standard_input() if str(path) == "-" else open(path, "rb")  # noqa: SIM115
                stack.callback(raw.close)
                status = os.fstat(raw.fileno())
                self._packed = raw.peek(2)[:2] == _GZIP
            except OSError as error:
                raise FileError(f"cannot read {self.name}: {error.strerror or error}") from None
            stack.pop_all()
        self._raw = raw
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.unfinished = False  # the latest line has no line end: the file may have been cut off within it

    @property
    def share_read(self) -> float | None:
        """How much of the file has been read, 0 to 1; None for a pipe, whose size is unknown."""
        if self._size is None:
            return None
        return min(1.0, self._raw.tell() / self._size) if self._size and not self._raw.closed else 1.0

    def check(self) -> None:
        """Read a gzipped file to its end, which verifies its checksum, and go back to its beginning. Skips a pipe.

        Raises FileError for a file that is cut off or damaged: what is unpacked from it may look like lines.
        """
        if self._packed and self._size is not None:
            for _ in self._chunks():
                pass
            self._raw.seek(0)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number (from 1) and bytes of each line that is not blank, without its line end: LF, CRLF or CR.

        A line over 16 MiB is cut there. To be called once. Raises FileError if the file cannot be read on, is damaged,
        or is gzipped and cut off; the unfinished line before that is not returned.
        """
        for number, line in enumerate(_split(self._chunks()), 1):
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            self.unfinished = not line.endswith((b"\n", b"\r"))
            if line := line.strip():
                yield number, line

    def close(self) -> None:
        self._raw.close()

    def _chunks(self) -> Iterator[bytes]:
        """The file's bytes, unpacked, as they come: lines typed into a pipe are not held back to fill a buffer."""
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if self._packed else self._raw
        try:
            while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]  # both have it
                yield chunk
        except EOFError:
            raise FileError(f"{self.name} is cut off in the middle") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{self.name} is damaged: {error}") from None
        except OSError as error:
            raise FileError(f"cannot read on in {self.name}: {error.strerror or error}") from None


def _standard_input() -> io.BufferedReader:
    if sys.stdin is None:  # closed when the process was started
        raise OSError("it is closed")
    return cast(io.BufferedReader, sys.stdin.buffer)


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line ends (the last may have none); the first MAX_LINE_BYTES of a longer one."""
    pending, too_long = bytearray(), False
    for chunk in chunks:
        pieces = chunk.splitlines(keepends=True)
        if pending.endswith(b"\r") and not chunk.startswith(b"\n"):  # it was a line end by itself
            pieces.insert(0, b"")
        for number, piece in enumerate(pieces, 1):
            pending += piece
            # a CR at the very end may be the first half of CRLF: it waits for the next chunk
            if pending.endswith(b"\n") or (pending.endswith(b"\r") and number < len(pieces)):
                if not too_long:
                    yield bytes(pending)
                pending.clear()
                too_long = False
        if len(pending) >= MAX_LINE_BYTES and not too_long:
            yield bytes(pending[:MAX_LINE_BYTES])
            too_long = True
        if too_long:
            del pending[:-1]
    if pending and not too_long:
        yield bytes(pending)
