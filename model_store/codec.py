"""An update as blobs, and back. docs/wire-format.md describes the format byte by byte; tests/golden pins it.

The same update gives the same bytes in every process, because blobs are named by their content, and because `verify`
and the kill tests compare versions bit for bit.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_store import container
from model_store.errors import DamagedBlob, InvalidUpdate
from model_store.version import canonical_json
from model_store.weights import TRAINER, Array, Rows, Update, Want, check, is_name

FORMAT = 1
WEIGHTS_GROUP, TRAINER_GROUP = "weights", "trainer"
GROUPS = (WEIGHTS_GROUP, TRAINER_GROUP)

# bytes of the arrays in a blob: joining 4 MB blocks every other thread for 2.5 ms; Redis takes values up to 512 MB
BLOB_LIMIT = 4 << 20
_TEXTS_AT_ONCE = 1 << 15  # texts encoded in one call, which blocks other threads for half a millisecond
_HARD_LIMIT = (512 << 20) - container.MAX_HEADER


def checksum(data: bytes) -> str:
    """SHA-256 in hex, the name of a blob."""
    return hashlib.sha256(data).hexdigest()


def group_of(name: str) -> str:
    """The group of blobs that a table or tensor belongs to: `trainer` for those under `trainer/`, else `weights`."""
    return TRAINER_GROUP if name.startswith(TRAINER) else WEIGHTS_GROUP


def encode(update: Update, *, logarithms: Collection[str] = (), limit: int = BLOB_LIMIT) -> dict[str, bytes]:
    """The update as safetensors blobs by name: `weights/0`, `weights/1`, ... and `trainer/0`, ...

    logarithms: names of the tables and tensors that may hold -inf, the logarithm of zero.
    limit: bytes of arrays in one blob; larger tables are cut between rows. An empty group has no blob, except `weights`
    of a full update.

    Raises: InvalidUpdate, naming the table or tensor, for numbers that are not finite (allowed under `trainer/`), text
    that is not Unicode, or a dtype that cannot be sent.
    """
    check(update)
    for name, values in _arrays(update):
        _must_be_sendable(name, values, name in logarithms)
    blobs: dict[str, bytes] = {}
    for group in GROUPS:
        parts = _fill(update, group, limit)
        if not parts and update.full and group == WEIGHTS_GROUP:
            parts = [_Part()]
        for number, part in enumerate(parts):
            metadata: dict[str, object] = {
                "format": FORMAT,
                "full": update.full,
                "group": group,
                "part": number,
                "parts": len(parts),
                "tables": part.tables,
            }
            blobs[f"{group}/{number}"] = container.pack(part.arrays, canonical_json(metadata).decode())
    return blobs


def decode(blobs: Mapping[str, bytes], *, full: bool, want: Want | None = None) -> Update:
    """The update of one version from its blobs: those of one group or of both, each group whole.

    full: whether the manifest calls the version a snapshot; the blobs must agree. want: which tables and tensors to
    return; the values of others are not checked. Arrays are read-only views of the blobs if a table is in one piece.

    Raises: DamagedBlob, naming the blob, for anything that `encode` does not write. No memory is allocated by what a
    blob merely claims.
    """
    wanted = want or (lambda _: True)
    if full and f"{WEIGHTS_GROUP}/0" not in blobs:
        raise DamagedBlob(f"a snapshot without the blob {WEIGHTS_GROUP}/0")
    tables: dict[str, Rows] = {}
    tensors: dict[str, Array] = {}
    for group in GROUPS:
        parts = [_read(name, data, full) for name, data in _in_order(blobs, group)]
        if parts and parts[0].parts != len(parts):
            raise DamagedBlob(f"{group}: {len(parts)} of {parts[0].parts} parts")
        pieces: dict[str, list[_Piece]] = {}
        for part in parts:
            for name, piece in part.tables.items():
                if wanted(name):
                    pieces.setdefault(name, []).append(piece)
            for name, tensor in part.tensors.items():
                if name in tensors or name in part.tables:
                    raise DamagedBlob(f"{part.blob}: {name} is there twice")
                if wanted(name):
                    _must_be_finite(name, tensor, part.blob)
                    tensors[name] = tensor
        tables.update((name, _join(name, several)) for name, several in pieces.items())
    update = Update(full, tables, tensors)
    try:
        check(update)
    except InvalidUpdate as error:
        raise DamagedBlob(f"{', '.join(sorted(blobs))}: {error}") from None
    return update


@dataclass(slots=True)
class _Part:
    """The content of one blob, while it is filled."""

    arrays: dict[str, Array] = field(default_factory=dict)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    bytes: int = 0


def _fill(update: Update, group: str, limit: int) -> list[_Part]:
    """The tables and then the tensors of a group, sorted by name, in parts of at most `limit` bytes.

    A single row or tensor that is larger has a part of its own, up to _HARD_LIMIT. Raises: InvalidUpdate beyond that.
    """
    parts: list[_Part] = []

    def room(least: int) -> _Part:
        # a part is closed when the next row or tensor does not fit
        if not parts or (parts[-1].bytes and parts[-1].bytes + least > limit):
            parts.append(_Part())
        return parts[-1]

    for name in sorted(n for n in update.tables if group_of(n) == group):
        columns = _columns(name, update.tables[name])
        start = 0
        while True:
            part = room(columns.bytes_of(start, min(start + 1, columns.rows)))
            stop = columns.most(start, limit - part.bytes)
            columns.put(part, start, stop)
            start = stop
            if start >= columns.rows:
                break
    for name in sorted(n for n in update.tensors if group_of(n) == group):
        tensor = update.tensors[name]
        part = room(tensor.nbytes)
        part.arrays[name] = tensor
        part.bytes += tensor.nbytes
    for part in parts:
        if part.bytes > _HARD_LIMIT:
            raise InvalidUpdate(
                f"{min(part.arrays)}: one row or tensor of {part.bytes} bytes; at most {_HARD_LIMIT} are sent"
            )
    return parts


@dataclass(frozen=True, slots=True)
class _Columns:
    """A table as the arrays that are sent; can be cut between rows."""

    name: str
    size: int
    rows: int
    index: NDArray[np.int64] | None  # None if the rows are consecutive, from `first` on
    first: int
    values: Array | None
    utf8: NDArray[np.uint8] | None
    ends: NDArray[np.int64]  # of strings, where in `utf8` row k ends; else empty

    def bytes_of(self, start: int, stop: int) -> int:
        """The bytes that the rows start..stop take."""
        fixed = 8 if self.index is not None else 0
        if self.values is not None:
            return (stop - start) * (fixed + self._row_bytes())
        return (stop - start) * (fixed + 4) + self._end(stop) - self._end(start)

    def most(self, start: int, room: int) -> int:
        """One past the last row that still fits into `room` bytes; at least one row."""
        fixed = 8 if self.index is not None else 0
        if self.values is not None:
            stop = start + room // max(fixed + self._row_bytes(), 1)
        else:
            taken = self.ends + (fixed + 4) * np.arange(1, self.rows + 1)
            stop = int(np.searchsorted(taken, self._end(start) + (fixed + 4) * start + room, side="right"))
        return min(max(stop, start + 1), self.rows)

    def put(self, part: _Part, start: int, stop: int) -> None:
        part.tables[self.name] = {"size": self.size}
        if self.index is not None:
            part.arrays[f"{self.name}:index"] = self.index[start:stop]
        else:
            part.tables[self.name]["first"] = self.first + start
        if self.values is not None:
            part.arrays[f"{self.name}:values"] = self.values[start:stop]
        elif self.utf8 is not None:
            before, after = self._end(start), self._end(stop)
            part.arrays[f"{self.name}:utf8"] = self.utf8[before:after]
            part.arrays[f"{self.name}:lengths"] = np.diff(self.ends[start:stop], prepend=before).astype(np.int32)
        part.bytes += self.bytes_of(start, stop)

    def _row_bytes(self) -> int:
        assert self.values is not None
        return self.values.dtype.itemsize * int(np.prod(self.values.shape[1:], dtype=np.int64))

    def _end(self, row: int) -> int:
        return int(self.ends[row - 1]) if row else 0


def _columns(name: str, rows: Rows) -> _Columns:
    n = len(rows.index)
    first = int(rows.index[0]) if n else 0
    consecutive = n == 0 or int(rows.index[-1]) - first == n - 1  # the index ascends
    index = None if consecutive else rows.index
    if isinstance(rows.values, np.ndarray):
        return _Columns(name, rows.size, n, index, first, rows.values, None, np.empty(0, np.int64))
    try:
        utf8, ends = _texts(rows.values)
    except UnicodeEncodeError as error:
        raise InvalidUpdate(f"{name}: text that is not Unicode ({error.reason})") from None
    return _Columns(name, rows.size, n, index, first, None, utf8, ends)


def _texts(values: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The texts as UTF-8, one after the other, and where each ends. Raises: UnicodeEncodeError.

    Encoded in pieces, and measured by numpy, so that no call on a million ids blocks other threads for long.
    """
    texts, lengths = [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
    for start in range(0, len(values), _TEXTS_AT_ONCE):
        piece = values[start : start + _TEXTS_AT_ONCE]
        raw = np.frombuffer("\0".join(piece).encode(), np.uint8)
        breaks = np.flatnonzero(raw == 0)
        if len(breaks) == len(piece) - 1:
            texts.append(raw[raw != 0])
            lengths.append(np.diff(breaks, prepend=-1, append=len(raw)) - 1)
        else:  # a text holds a zero byte itself
            encoded = [value.encode() for value in piece]
            texts.append(np.frombuffer(b"".join(encoded), np.uint8))
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(piece)))
    return np.concatenate(texts), np.cumsum(np.concatenate(lengths))


def _arrays(update: Update) -> Iterator[tuple[str, Array]]:
    for name, rows in update.tables.items():
        if isinstance(rows.values, np.ndarray):
            yield name, rows.values
    yield from update.tensors.items()


def _must_be_sendable(name: str, values: Array, logarithms: bool) -> None:
    if not container.can_hold(values.dtype):
        raise InvalidUpdate(f"{name}: arrays of {values.dtype} are not sent")
    if (amiss := _not_finite(name, values, logarithms)) is not None:
        raise InvalidUpdate(f"{name}: {amiss}")


def _must_be_finite(name: str, values: Array, blob: str) -> None:
    """-inf passes here: only the model knows which arrays may hold it, and checks before it takes an update over."""
    if (amiss := _not_finite(name, values, logarithms=True)) is not None:
        raise DamagedBlob(f"{blob}: {name}: {amiss}")


def _not_finite(name: str, values: Array, logarithms: bool) -> str | None:
    """What is wrong with the numbers of a table or tensor that readers score with, or None."""
    if group_of(name) == TRAINER_GROUP or not np.issubdtype(values.dtype, np.floating) or not values.size:
        return None
    # the extremes suffice, without a large array of booleans: NaN makes both NaN
    low, high = float(np.min(values)), float(np.max(values))
    if np.isnan(low) or np.isnan(high):
        return "holds NaN"
    if np.isposinf(high):
        return "holds +inf"
    if np.isneginf(low) and not logarithms:
        return "holds -inf"
    return None


@dataclass(frozen=True, slots=True)
class _Piece:
    """The rows of a table that one blob brings."""

    blob: str
    index: NDArray[np.int64]
    values: "Array | list[str]"
    size: int


@dataclass(frozen=True, slots=True)
class _ReadPart:
    blob: str
    parts: int
    tables: dict[str, _Piece]
    tensors: dict[str, Array]


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What a blob says about itself."""

    full: bool
    group: str
    part: int
    parts: int
    tables: dict[str, dict[str, int]]


def _in_order(blobs: Mapping[str, bytes], group: str) -> Iterator[tuple[str, bytes]]:
    names = [name for name in blobs if name.startswith(f"{group}/")]
    for name in sorted(blobs):
        if name.partition("/")[0] not in GROUPS:
            raise DamagedBlob(f"{name[:200]!r} is no name of a blob")
    for number in range(len(names)):
        name = f"{group}/{number}"
        if name not in blobs:
            raise DamagedBlob(f"{name} is missing beside {', '.join(sorted(names))[:200]}")
        yield name, blobs[name]


def _read(blob: str, data: bytes, full: bool) -> _ReadPart:
    """One blob, checked: every array in it belongs to a table or is a tensor."""
    try:
        arrays, text = container.unpack(data)
        metadata = _metadata(text)
        group, _, number = blob.partition("/")
        if (metadata.group, metadata.part) != (group, int(number)):
            raise DamagedBlob(f"it says of itself {metadata.group}/{metadata.part}")
        if metadata.full is not full:
            raise DamagedBlob("full and partial do not agree with the manifest")
        tables = {name: _piece(blob, name, entry, arrays) for name, entry in metadata.tables.items()}
        for name in arrays:
            if not is_name(name):
                raise DamagedBlob(f"{name[:200]!r} is no name for a tensor")
        for name in (*tables, *arrays):
            if group_of(name) != group:
                raise DamagedBlob(f"{name} does not belong in {group}")
        return _ReadPart(blob, metadata.parts, tables, arrays)
    except DamagedBlob as error:
        raise DamagedBlob(f"{blob}: {error}") from None


def _metadata(text: str) -> _Metadata:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedBlob(f"the metadata is not JSON: {error}") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else None
        raise DamagedBlob(f"blob of format {str(found)[:50]!r}: this build reads format {FORMAT}")
    if fields.keys() != {"format", "full", "group", "part", "parts", "tables"}:
        raise DamagedBlob("the metadata has format, full, group, part, parts and tables")
    full, group, part, parts, tables = (fields[key] for key in ("full", "group", "part", "parts", "tables"))
    if type(full) is not bool or group not in GROUPS or type(part) is not int or type(parts) is not int:
        raise DamagedBlob("the metadata's full, group, part or parts is of another type")
    if not isinstance(tables, dict):
        raise DamagedBlob("the metadata's tables are no JSON object")
    for name, entry in tables.items():
        if not is_name(name):
            raise DamagedBlob(f"{name[:200]!r} is no name for a table")
        if not isinstance(entry, dict) or entry.keys() - {"first"} != {"size"}:
            raise DamagedBlob(f"{name}: a table has a size and may have a first row")
        if not all(type(n) is int and 0 <= n < 2**53 for n in entry.values()):
            raise DamagedBlob(f"{name}: size {entry['size']!r} or first row is no count")
    return _Metadata(full, group, part, parts, tables)


def _piece(blob: str, name: str, entry: Mapping[str, int], arrays: dict[str, Array]) -> _Piece:
    """Takes the arrays of one table out of `arrays`."""
    values: Array | list[str]
    if (found := arrays.pop(f"{name}:values", None)) is not None:
        if found.ndim == 0:
            raise DamagedBlob(f"{name}: the values have no rows")
        _must_be_finite(name, found, blob)
        values = found
    else:
        values = _strings(
            name,
            _vector(name, "utf8", np.dtype(np.uint8), arrays).tobytes(),
            _vector(name, "lengths", np.dtype(np.int32), arrays),
        )
    first = entry.get("first")
    if first is None:
        index = _vector(name, "index", np.dtype(np.int64), arrays).view(np.int64)
    else:
        index = np.arange(first, first + len(values), dtype=np.int64)
    return _Piece(blob, index, values, entry["size"])


def _vector(name: str, column: str, dtype: "np.dtype[np.generic]", arrays: dict[str, Array]) -> Array:
    array = arrays.pop(f"{name}:{column}", None)
    if array is None:
        raise DamagedBlob(f"{name}: no {column}")
    if array.dtype != dtype or array.ndim != 1:
        raise DamagedBlob(f"{name}: {column} are {array.dtype}[{array.ndim}-d], not a vector of {dtype}")
    return array


def _strings(name: str, utf8: bytes, lengths: Array) -> list[str]:
    each = lengths.tolist()
    if each and min(each) < 0:
        raise DamagedBlob(f"{name}: a negative length")
    if sum(each) != len(utf8):
        raise DamagedBlob(f"{name}: lengths of {sum(each)} bytes for {len(utf8)} bytes of text")
    found, start = [], 0
    try:
        if utf8.isascii():  # bytes and characters are the same, so one decoding serves all texts
            text = utf8.decode("ascii")
            for length in each:
                found.append(text[start : start + length])
                start += length
        else:
            for length in each:
                found.append(utf8[start : start + length].decode())
                start += length
    except UnicodeDecodeError as error:
        raise DamagedBlob(f"{name}: row {len(found)} is not UTF-8 ({error.reason})") from None
    return found


def _join(name: str, pieces: Sequence[_Piece]) -> Rows:
    """One table from its pieces. `check` sees later that the index ascends over all of them."""
    head = pieces[0]
    if len(pieces) == 1:
        return Rows(head.index, head.values, head.size)
    for piece in pieces[1:]:
        if piece.size != head.size or _row_of(piece.values) != _row_of(head.values):
            raise DamagedBlob(f"{piece.blob}: {name} is not the same table as in {head.blob}")
    index = np.concatenate([piece.index for piece in pieces])
    arrays = [piece.values for piece in pieces if isinstance(piece.values, np.ndarray)]
    if arrays:
        return Rows(index, np.concatenate(arrays), head.size)
    return Rows(index, [value for piece in pieces for value in piece.values], head.size)


def _row_of(values: "Array | list[str]") -> object:
    return (values.dtype, values.shape[1:]) if isinstance(values, np.ndarray) else None
