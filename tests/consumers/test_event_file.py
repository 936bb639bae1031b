"""Whatever way lines are written down, they are read as the same lines; and a file that is not whole says so."""

import gzip
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import event_file
from consumers.event_file import EventFile, FileError

LINES = [b'{"user_id":"u1"}', '{"user_id":"ü☃"}'.encode(), b'{"user_id":"u3"}']


def read(path: Path) -> list[tuple[int, bytes]]:
    file = EventFile(path)
    try:
        return list(file.lines())
    finally:
        file.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz", "without"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_every_way_to_write_lines_down(
    packed: bool, end: bytes, mark: bytes, last: bool, name: str, chunk: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(event_file, "_CHUNK", chunk)
    content = mark + end.join(LINES) + (end if last else b"")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert read(tmp_path / name) == list(enumerate(LINES, 1))


def test_blank_lines_are_counted_and_not_given(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"\n \t\n" + LINES[0] + b"\r\n\r\n" + LINES[1] + b"  ")
    assert read(tmp_path / "e") == [(3, LINES[0]), (5, LINES[1])]


def test_members_of_gzip_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(gzip.compress(LINES[0] + b"\n") + gzip.compress(LINES[1] + b"\n") + bytes(512))
    assert read(tmp_path / "e") == list(enumerate(LINES[:2], 1))


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_once_and_as_it_comes(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arrived = threading.Event()

    def write() -> None:
        with pipe.open("wb") as file:
            if packed:
                file.write(gzip.compress(b"\n".join(LINES)))
                return
            file.write(LINES[0] + b"\n")
            file.flush()
            assert arrived.wait(10)  # the first line is out while the pipe is still open
            file.write(b"\n".join(LINES[1:]))

    thread = threading.Thread(target=write)
    thread.start()
    file = EventFile(pipe)
    try:
        lines = file.lines()
        first = next(lines)
        arrived.set()
        assert [first, *lines] == list(enumerate(LINES, 1))
        assert file.share_read is None
        file.check()  # there is nothing to go back to
    finally:
        arrived.set()
        file.close()
        thread.join()


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e").write_bytes(b"\n".join(LINES))
    with (tmp_path / "e").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read(Path("-")) == list(enumerate(LINES, 1))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FileError, match="cannot read standard input: it is closed"):
        EventFile(Path("-"))


def long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(event_file, "_CHUNK", 30)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("length", [100, 119, 120, 121, 1000])
def test_an_endless_line_is_bounded(end: bytes, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_lines(monkeypatch)
    (tmp_path / "e").write_bytes(end.join([LINES[0], b"x" * length, LINES[1]]))
    (one, two, three) = read(tmp_path / "e")
    assert (one, three) == ((1, LINES[0]), (3, LINES[1]))
    assert two[0] == 2
    assert 100 <= len(two[1]) <= 130


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"a\r", b"\n", b"\r\n", b"\r", b"bc\n"]), max_size=12))
def test_lines_do_not_depend_on_where_chunks_end(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert list(event_file._split(iter(chunk for chunk in chunks if chunk))) == whole.splitlines(keepends=True)


def packed_lines() -> bytes:
    return gzip.compress(b"".join(b'{"user_id":"u%d","n":%d}\n' % (n * 7919 % 1000, n) for n in range(5000)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_packed_file_that_is_cut_off_says_so(share: float, tmp_path: Path) -> None:
    content = packed_lines()
    (tmp_path / "e").write_bytes(content[: int(len(content) * share)])
    file = EventFile(tmp_path / "e")
    for attempt in (file.check, lambda: read(tmp_path / "e")):
        with pytest.raises(FileError, match=f"^{tmp_path}/e is cut off in the middle$"):
            attempt()
    file.close()


def test_half_a_line_before_the_cut_is_not_given(tmp_path: Path) -> None:
    content = packed_lines()
    (tmp_path / "e").write_bytes(content[: len(content) // 2])
    file, given = EventFile(tmp_path / "e"), list[bytes]()

    def collect(lines: Iterator[tuple[int, bytes]]) -> None:
        given.extend(line for _, line in lines)

    with pytest.raises(FileError):
        collect(file.lines())
    assert len(given) > 100
    assert all(line.endswith(b"}") for line in given)
    file.close()


@pytest.mark.parametrize("place", [-5, -2000, 5000])
def test_a_bit_that_flipped_is_found_before_anything_is_read(place: int, tmp_path: Path) -> None:
    content = bytearray(packed_lines())
    content[place] ^= 4
    (tmp_path / "e").write_bytes(content)
    file = EventFile(tmp_path / "e")
    with pytest.raises(FileError, match=r"e is (damaged: .*|cut off in the middle)"):
        file.check()
    file.close()


def test_after_a_check_it_is_read_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(packed_lines())
    file = EventFile(tmp_path / "e")
    file.check()
    assert len(list(file.lines())) == 5000
    assert file.share_read == 1.0
    file.close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=f"^cannot read {tmp_path}/nothing: No such file"):
        EventFile(tmp_path / "nothing")
    with pytest.raises(FileError, match="Is a directory"):
        EventFile(tmp_path)
