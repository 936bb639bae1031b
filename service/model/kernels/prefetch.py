"""Asks for memory before it is needed, so that lines come from it at once and not one after the other.

Which rows a history needs is known before they are read; a processor that meets them one by one waits for each, since
it cannot guess past a search in a row. It is a hint: it changes no value, and an address outside the array is harmless.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from service.model.kernels.compiled import Kernel

_READ, _KEEP, _DATA = 0, 3, 1  # the arguments of LLVM's prefetch: for reading, into every cache, not instructions


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of_array, of_index = signature.args
        value = context.make_array(of_array)(context, builder, arguments[0])
        at = context.cast(builder, arguments[1], of_index, types.intp)
        (step, *_) = cgutils.unpack_tuple(builder, value.strides, of_array.ndim)
        byte, word = ir.IntType(8), ir.IntType(32)
        address = builder.gep(
            builder.bitcast(value.data, byte.as_pointer()), [builder.mul(at, step)], source_etype=byte
        )
        shape = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), word, word, word])
        hint = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        builder.call(hint, [address, word(_READ), word(_KEEP), word(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Kernel = intrinsic(_prefetch)
"""`prefetch(array, n)` in a kernel asks for the line that holds the first value of array[n]."""
