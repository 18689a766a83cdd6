"""Arrays as bare pointers, for functions that only compiled code calls.

Numba passes an array as seven numbers and counts references to it at each call, which costs more than most of these
functions do; and it compiles a function for each kind of array. A pointer is one number. It is indexed like an
array, by numbers of 64 bits only, and knows no length.
"""

from typing import Any

from llvmlite import ir
from numba import extending, njit, types

intrinsic: Any = extending.intrinsic
"""Its functions are called without the first argument, which type checkers do not know."""
inner: Any = njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # pyrefly: ignore
"""For functions that Python does not call: they compile in half the time."""


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """The first element of an array, which somebody else must keep alive."""

    def generate(context, builder, signature, arguments):
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def as_bytes(typing_context: Any, array: Any) -> Any:
    """The same as a pointer to bytes."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.bitcast(data, ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(array), generate
