"""The kernels' logarithm beside the library's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.kernels.logarithm import log

LEAST, MOST = float(np.float32(1e-37)), float(np.finfo(np.float32).max)


@given(st.floats(LEAST, MOST, width=32))
def test_it_is_the_logarithm_to_a_millionth(x: float) -> None:
    assert log(np.float32(x)) == pytest.approx(math.log(x), rel=1e-6, abs=1e-6)


@given(st.floats(0.5, 2.0, width=32))
def test_near_one_it_is_exact_to_the_last_bits(x: float) -> None:
    assert log(np.float32(x)) == pytest.approx(math.log(x), rel=1e-6, abs=2e-7)


def test_of_one_it_is_nothing() -> None:
    assert log(np.float32(1)) == 0.0
