"""Random numbers that depend on (seed, name) alone, so that the order of arrival cannot change them."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose output bits look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform_rows(seed: int, names: Sequence[str], width: int) -> NDArray[np.float32]:
    """[len(names), width] uniform in (-1, 1), a pure function of seed and name."""
    key = seed.to_bytes(8, "little", signed=True)
    state = np.array(
        [
            int.from_bytes(hashlib.blake2b(n.encode(errors="surrogatepass"), digest_size=8, key=key).digest(), "little")
            for n in names
        ],
        dtype=np.uint64,
    )
    step = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = mix(state[:, None] + step[None, :])
    return ((bits >> np.uint64(40)).astype(np.float32) - np.float32(2**23) + np.float32(0.5)) * np.float32(2.0**-23)
