"""The natural logarithm for kernels: additions, products and one quotient, no library.

A mathematical library's logarithm differs between its releases in the last bit, and takes three times as long. With
m = x / 2^e between sqrt(1/2) and sqrt(2) and s = (m - 1) / (m + 1):

    log x = e log 2 + 2 (s + s^3 / 3 + s^5 / 5 + s^7 / 7 + ...)

Up to s^7 the error is below 1e-7, which is float32's own.
"""

import numpy as np

from service.model.kernels.compiled import kernel

LOG_2 = np.float32(0.6931471805599453)
_ONE, _THIRD, _FIFTH, _SEVENTH = np.float32(1), np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7)
_TWO, _HALF = np.float32(2), np.float32(0.5)
_SQRT_2 = np.float32(1.4142135623730951)


@kernel
def log(x):
    """Of a float32 above 1e-37, as a float32."""
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> 23) - 127)
    m = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)
    if m > _SQRT_2:
        m *= _HALF
        exponent += _ONE
    s = (m - _ONE) / (m + _ONE)
    square = s * s
    series = _ONE + square * (_THIRD + square * (_FIFTH + square * _SEVENTH))
    return exponent * LOG_2 + _TWO * s * series
