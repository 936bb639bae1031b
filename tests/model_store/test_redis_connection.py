"""What is sent is what the library would send, whatever the size of a value."""

from typing import Any

import redis.connection
from hypothesis import given
from hypothesis import strategies as st

from model_store.redis_connection import _Packer

library: Any = redis.connection  # the stubs that some environments hold lack half of it
LIBRARY = library.PythonRespSerializer(6000, library.Encoder("utf-8", "strict", False).encode)
large = st.integers(_Packer.LARGE - 1, _Packer.LARGE + 2).map(lambda n: b"\r\n" * (n // 2) + b"x" * (n % 2))


@given(
    st.sampled_from(["SET", "CLIENT SETINFO", "EVALSHA"]),
    st.lists(st.binary(max_size=20) | st.text() | st.integers() | st.floats(allow_nan=False) | large, max_size=5),
)
def test_commands_are_packed_as_the_library_packs_them(name: str, arguments: list[str | bytes | int | float]) -> None:
    assert b"".join(_Packer().pack(name, *arguments)) == b"".join(LIBRARY.pack(name, *arguments))


def test_a_large_value_is_not_copied() -> None:
    value = b"x" * (_Packer.LARGE + 1)
    assert any(part is value for part in _Packer().pack("SET", "key", value, "EX", 60))
