"""Shape inference: ``infer(target, args, kwargs)`` over ``TensorSpec``s, in pure Python.

One file a family of operators; each ends in ``ROWS``, its part of the table. Layout rules that
families share are in ``layout``, dtype rules in ``promotion``.
"""

from torch_aio.ir.shapes.inference import Spec, infer, shape_function, spec_of

__all__ = ["Spec", "infer", "shape_function", "spec_of"]
