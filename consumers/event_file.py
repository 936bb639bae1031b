"""A file of records being read: one JSON object a line, gzipped or not."""

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

MAX_LINE_BYTES = 16 * 1024 * 1024


class FileError(RuntimeError):
    """The file cannot be read, or not to its end; the message is one line."""


class EventFile:
    """A `.jsonl` or `.jsonl.gz` being read, from its first line to its last. Raises FileError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._raw = open(path, "rb")  # noqa: SIM115 - closed by close()
            self.size = path.stat().st_size
            packed = self._raw.peek(2)[:2] == b"\x1f\x8b"
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}") from None
        self._lines: IO[bytes] | gzip.GzipFile | BufferedReader = (
            gzip.GzipFile(fileobj=self._raw) if packed else self._raw
        )
        self.done = False

    @property
    def share_read(self) -> float:
        """How much of the file has been read, 0 to 1."""
        if self.done or self.size == 0:
            return 1.0
        return min(1.0, self._raw.tell() / self.size)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Number (from 1) and bytes of each line that is not blank. A line over 16 MiB comes cut off there."""
        number = 0
        try:
            while line := self._lines.readline(MAX_LINE_BYTES):
                number += 1
                rest = line
                while not rest.endswith(b"\n") and len(rest) == MAX_LINE_BYTES:
                    rest = self._lines.readline(MAX_LINE_BYTES)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark there
                if line := line.strip():
                    yield number, line
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(f"cannot read {self._path} after line {number}: {error}") from None
        self.done = True

    def close(self) -> None:
        self._lines.close()
        self._raw.close()
