"""The table of operators that random programs are made of: how each draws its arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from random_elementwise import (
    ANY_NDIM,
    PAIRS,
    SHARP,
    SMOOTH,
    STEPS,
    LineOf,
    addcmul,
    binary,
    bits,
    cast,
    cat,
    compare,
    dim_of,
    expand,
    logic,
    masked_fill,
    narrow,
    permute,
    reshape,
    scalar,
    select,
    split,
    squeeze,
    stack,
    transpose,
    unary,
    where,
)
from random_graphs import Draw, Operator, Table, Value
from random_program import BOOL, FLOAT, INT, LONG, Shape

# ---- products -------------------------------------------------------------------------------


def linear(d: Draw) -> str:
    x = d.value(ndim=(2, 3, 1, 4))
    out = d.of((1, 3, 8, 16, 17, 40))
    bias = d.parameter((out,)) if d.flag() else "None"
    return f"F.linear({x.name}, {d.parameter((out, x.shape[-1]))}, {bias})"


def matmul(d: Draw) -> str:
    """Matrices, batches that broadcast, and vectors."""
    a = d.value(ndim=(2, 3, 4, 1))
    k = a.shape[-1]

    def shape() -> Shape:
        batch = a.shape[:-2] if d.flag() else ()
        return (k,) if d.rare() else (*batch, k, d.size())

    def fits(v: Value) -> bool:
        return v.shape[-2 if len(v.shape) > 1 else -1] == k

    return f"{a.name} @ {d.value(fits, ndim=(1, 2, 3, 4), shape=shape).name}"


def matmul_transposed(d: Draw) -> str:
    """``a @ b.T`` of values, as attention scores are."""
    a = d.value(ndim=(2, 3, 4))

    def shape() -> Shape:
        return (*a.shape[:-2], d.size(), a.shape[-1])

    def fits(v: Value) -> bool:
        return (*v.shape[:-2], v.shape[-1]) == (*a.shape[:-2], a.shape[-1])

    b = d.value(fits, ndim=(len(a.shape),), shape=shape)
    return f"{a.name} @ {b.name}.transpose(-1, -2)"


def bmm(d: Draw) -> str:
    a = d.value(ndim=(3,))
    n, _, k = a.shape
    b = d.value(lambda v: v.shape[:2] == (n, k), ndim=(3,), shape=lambda: (n, k, d.size()))
    return f"torch.bmm({a.name}, {b.name})"


def addmm(d: Draw) -> str:
    a = d.value(ndim=(2,))
    n = d.of((1, 5, 16, 33))
    scales = d.of(("", ", alpha=0.5", ", beta=2"))
    return f"torch.addmm({d.parameter((n,))}, {a.name}, {d.parameter((a.shape[1], n))}{scales})"


# ---- planes ---------------------------------------------------------------------------------


def _planes(d: Draw, dims: int) -> Value:
    def shape() -> Shape:
        channels = d.of((1, 3, 4, 8, 15, 16, 20))
        plane = (d.of((1, 4, 5, 7, 8, 12, 17)) for _ in range(dims))
        return (d.integer(1, 2), channels, *plane)

    return d.value(lambda v: v.shape[1] <= 40, ndim=(dims + 2,), shape=shape)


def conv(dims: int) -> LineOf:
    """``conv1d`` and ``conv2d``: groups, depthwise, stride, padding, dilation."""

    def line(d: Draw) -> str:
        x = _planes(d, dims)
        channels = x.shape[1]
        groups = d.of([1, 1, *(g for g in (2, 4, channels) if channels and channels % g == 0)])
        out = groups * d.of((1, 2, 3, 8, 16) if groups < 8 else (1, 2))
        kernel = tuple(d.of((1, 3, 2, 5, 7)) for _ in range(dims))
        stride, padding, dilation = (
            tuple(d.of(options) for _ in range(dims)) for options in ((1, 2, 3), (0, 1, 2), (1, 2))
        )
        weight = d.parameter((out, channels // groups, *kernel))
        bias = d.parameter((out,)) if d.flag() else "None"
        return (
            f"F.conv{dims}d({x.name}, {weight}, {bias}, {stride}, {padding}, {dilation}, {groups})"
        )

    return line


def batch_norm(d: Draw) -> str:
    x = d.value(lambda v: v.shape[1] > 0, ndim=(4, 3, 2))
    c = (x.shape[1],)
    weights = ", ".join(d.parameter(c) for _ in range(2)) if d.flag() else "None, None"
    return f"F.batch_norm({x.name}, {d.parameter(c)}, {d.parameter(c)}.abs() + 0.5, {weights})"


def max_pool(dims: int) -> LineOf:
    def line(d: Draw) -> str:
        kernel, dilation = d.of((2, 3, 5)), d.of((1, 1, 2))
        padding = d.integer(0, kernel // 2)
        ceil = d.rare(4)
        x = _planes(d, dims).name
        return (
            f"F.max_pool{dims}d({x}, {kernel}, {d.of((1, 2, 3))}, {padding}, {dilation}, "
            f"ceil_mode={ceil})"
        )

    return line


def avg_pool(dims: int) -> LineOf:
    def line(d: Draw) -> str:
        kernel = d.of((2, 3, 5))
        padding = d.integer(0, kernel // 2)
        options = f"ceil_mode={d.rare(4)}, count_include_pad={d.flag()}"
        x = _planes(d, dims).name
        return f"F.avg_pool{dims}d({x}, {kernel}, {d.of((1, 2, 3))}, {padding}, {options})"

    return line


def adaptive_pool(dims: int) -> LineOf:
    def line(d: Draw) -> str:
        size = tuple(d.of((1, 2, 3, 7)) for _ in range(dims))
        return f"F.adaptive_avg_pool{dims}d({_planes(d, dims).name}, {size})"

    return line


# ---- rows -----------------------------------------------------------------------------------


def softmax(d: Draw) -> str:
    x = d.value(ndim=(2, 3, 4, 1))
    return f"{d.of(('torch.softmax', 'torch.log_softmax'))}({x.name}, {dim_of(d, x)})"


def layer_norm(d: Draw) -> str:
    x = d.value(lambda v: 0 not in v.shape, ndim=(2, 3, 4, 1))
    shape = x.shape[-d.integer(1, min(2, len(x.shape))) :]
    weight, bias = (d.parameter(shape) if d.flag() else "None" for _ in range(2))
    return f"F.layer_norm({x.name}, {shape}, {weight}, {bias})"


def rms_norm(d: Draw) -> str:
    x = d.value(lambda v: 0 not in v.shape, ndim=(2, 3, 4, 1))
    shape = x.shape[-1:]
    weight = d.parameter(shape) if d.flag() else "None"
    return f"F.rms_norm({x.name}, {shape}, {weight}, 1e-6)"


def group_norm(d: Draw) -> str:
    x = d.value(lambda v: 0 not in v.shape, ndim=(4, 3))
    c = x.shape[1]
    groups = d.of([g for g in (1, 2, 4, c) if c % g == 0])
    weights = ", ".join(d.parameter((c,)) for _ in range(2)) if d.flag() else "None, None"
    return f"F.group_norm({x.name}, {groups}, {weights})"


def _dims(d: Draw, x: Value) -> str:
    """One dimension, several, or all of them."""
    if not x.shape or d.rare(4):
        return ""
    first = d.integer(0, len(x.shape) - 1)
    dims = {first, d.integer(0, len(x.shape) - 1)} if d.rare(3) else {first}
    return f"{sorted(dims)}, keepdim={d.flag()}"


def reduction(name: str) -> LineOf:
    def line(d: Draw) -> str:
        x = d.value(ndim=ANY_NDIM)
        return f"{x.name}.{name}({_dims(d, x)})"

    return line


def integer_sum(d: Draw) -> str:
    x = d.value(dtypes=(LONG, BOOL), ndim=(2, 3, 1))
    return f"{x.name}.sum({_dims(d, x)})"


def largest(d: Draw) -> str:
    """The values of ``max(dim)``; ties make the places a matter of taste."""
    x = d.value(ndim=(2, 3, 1))
    return f"{x.name}.{d.of(('max', 'min'))}({dim_of(d, x)}, {d.flag()})[0]"


def moment(d: Draw) -> str:
    x = d.value(lambda v: v.shape[-1] > 1, ndim=(2, 3, 1))
    return f"{x.name}.{d.of(('var(-1)', 'std(-1, False)', 'norm(2, -1)', 'cumsum(0)'))}"


def truth(d: Draw) -> str:
    x = d.value(dtypes=(BOOL,), ndim=(2, 3, 1))
    return f"{x.name}.{d.of(('any', 'all'))}({_dims(d, x)})"


# ---- attention ------------------------------------------------------------------------------


def _heads(d: Draw) -> tuple[Value, Value, Value]:
    """Queries, keys and values: (batch, heads, length, width)."""
    width = d.of((8, 4, 16, 5, 32))
    heads, queries, keys = d.integer(1, 3), d.of((1, 3, 8, 17)), d.of((3, 8, 1, 17, 33))
    batch = d.integer(1, 2)
    shapes = [(batch, heads, n, width) for n in (queries, keys, keys)]
    q, k, v = (d.value(lambda t, s=s: t.shape == s, ndim=(4,), shape=lambda s=s: s) for s in shapes)
    return q, k, v


def attention(d: Draw) -> str | None:
    q, k, v = _heads(d)
    rows, keys = q.shape[2], k.shape[2]
    masks: dict[str, Callable[[], Value]] = {
        "bool": lambda: d.input((rows, keys), BOOL),
        "float": lambda: d.input((q.shape[0], 1, 1, keys)),
    }
    options = {"": "", "causal": ", is_causal=True", "scale": ", scale=0.25"}
    if not (k.plain.isfinite().all() and v.plain.isfinite().all()):
        # Eager has two kernels for it, and how much one sees of hidden keys depends on its blocks.
        del options["causal"]
    kind = d.of([*options, *masks])
    mask = d.use(masks[kind]()) if kind in masks else None
    if _loses_nan(q.plain @ k.plain.mT, mask):
        return None
    given = f", attn_mask={mask.name}" if mask else options[kind]
    return f"F.scaled_dot_product_attention({q.name}, {k.name}, {v.name}{given})"


def _loses_nan(scores: Tensor, mask: Value | None) -> bool:
    """Whether a row has NaN and else only -inf: eager loses it in lanes past its last vector."""
    if mask is not None:
        added = mask.plain.log() if mask.dtype == BOOL else mask.plain
        scores = scores + added
    return bool((scores.isnan().any(-1) & ~(scores > -torch.inf).any(-1)).any())


def attention_spelled(d: Draw) -> str:
    q, k, v = _heads(d)
    mask = f" + {d.use(d.input((q.shape[0], 1, 1, k.shape[2]))).name}" if d.flag() else ""
    scores = f"{q.name} @ {k.name}.transpose(-1, -2) / {d.of(('2.0', '3.0'))}{mask}"
    return f"torch.softmax({scores}, -1) @ {v.name}"


# ---- indices --------------------------------------------------------------------------------


def _indices(d: Draw, limit: int, shape: Shape, *, from_zero: bool = True) -> Value:
    dtype = d.of((LONG, INT)) if from_zero and len(shape) < 3 else LONG
    return d.use(d.input(shape, dtype, limit=limit, from_zero=from_zero))


def embedding(d: Draw) -> str:
    rows, width = d.of((1, 7, 30)), d.of((1, 5, 8, 16, 33))
    ids = _indices(d, rows, d.shape(d.of((2, 1))))
    return f"F.embedding({ids.name}, {d.parameter((rows, width))})"


def index(d: Draw) -> str | None:
    """``x[i]``, ``x[:, i]`` and ``x[i, j]``; negative indices count from the end."""
    x = d.value(dtypes=(FLOAT, LONG), ndim=(2, 3))
    if 0 in x.shape:
        return None
    shape = d.shape(d.of((1, 2)))
    first, second = (d.use(d.input(shape, LONG, limit=x.shape[i])).name for i in (0, 1))
    text = d.of(("{x}[{i}]", "{x}[:, {j}]", "{x}[{i}, {j}]"))
    return text.format(x=x.name, i=first, j=second)


def gather(d: Draw) -> str | None:
    x = d.value(ndim=(2, 3, 1))
    dim = d.integer(0, len(x.shape) - 1)
    if x.shape[dim] == 0:
        return None
    shape = (*x.shape[:dim], d.size(), *x.shape[dim + 1 :])
    places = d.use(d.input(shape, LONG, limit=x.shape[dim], from_zero=True))
    return f"torch.gather({x.name}, {dim}, {places.name})"


def index_select(d: Draw) -> str | None:
    x = d.value(ndim=(2, 3, 1))
    dim = d.integer(0, len(x.shape) - 1)
    if x.shape[dim] == 0:
        return None
    places = d.use(d.input((d.size(),), LONG, limit=x.shape[dim], from_zero=True))
    return f"torch.index_select({x.name}, {dim}, {places.name})"


def moved(d: Draw) -> str:
    """Padding, mirroring, repeating."""
    x = d.value(dtypes=(FLOAT, LONG), ndim=(2, 3))
    ways = ("F.pad({x}, (1, 2, 0, 3), value=2)", "{x}.flip(0, 1)", "{x}.repeat(2, 1, 3)")
    return d.of(ways).format(x=x.name)


def arange(d: Draw) -> str:
    x = d.value(ndim=(2, 3, 1))
    text = d.of(("{x} + torch.arange({n})", "torch.arange(1, {n} + 1, dtype=f32) * {x}"))
    return text.format(x=x.name, n=f"{x.name}.shape[-1]")


OPERATORS: tuple[Operator, ...] = (
    *(Operator(text, "smooth", unary(text)) for text in SMOOTH),
    *(Operator(text, "sharp", unary(text), exact=True) for text in SHARP),
    *(Operator(text, "step", unary(text, exact_operand=True), exact=True) for text in STEPS),
    *(Operator(text, "pair", binary(text)) for text in PAIRS),
    Operator("maximum", "pair", binary("torch.maximum({a}, {b})", (FLOAT, LONG)), exact=True),
    Operator("minimum", "pair", binary("torch.minimum({a}, {b})", (FLOAT, LONG)), exact=True),
    *(Operator(t, "scalar", scalar(t)) for t in ("{x} + {n}", "{n} - {x}", "{x} * {n}")),
    Operator("div", "scalar", scalar("{x} / {n}", ("2", "-3.5"))),
    Operator("floor_div", "scalar", scalar("{x} // {n}", ("2", "-3"), (LONG, INT)), exact=True),
    Operator("addcmul", "scalar", addcmul),
    Operator("compare", "mask", compare, exact=True),
    Operator("where", "mask", where, exact=True),
    Operator("masked_fill", "mask", masked_fill, exact=True),
    Operator("logic", "mask", logic, exact=True),
    Operator("bits", "mask", bits, exact=True),
    Operator("cast", "mask", cast, exact=True),
    *(
        Operator(line.__name__, "view", line, exact=True)
        for line in (transpose, permute, reshape, squeeze, expand, narrow, narrow, select, split)
    ),
    Operator("cat", "join", cat, exact=True),
    Operator("stack", "join", stack, exact=True),
    Operator("moved", "join", moved, exact=True),
    *(
        Operator(line.__name__, "product", line)
        for line in (linear, matmul, matmul_transposed, bmm, addmm)
    ),
    Operator("conv2d", "conv", conv(2)),
    Operator("conv1d", "conv", conv(1)),
    Operator("batch_norm", "conv", batch_norm),
    Operator("max_pool2d", "pool", max_pool(2), exact=True),
    Operator("avg_pool2d", "pool", avg_pool(2)),
    Operator("adaptive_avg_pool2d", "pool", adaptive_pool(2)),
    *(Operator(line.__name__, "row", line) for line in (softmax, layer_norm, rms_norm, group_norm)),
    *(Operator(name, "reduce", reduction(name)) for name in ("sum", "mean")),
    *(Operator(name, "reduce", reduction(name), exact=True) for name in ("amax", "amin")),
    Operator("moment", "reduce", moment),
    Operator("truth", "reduce", truth, exact=True),
    Operator("integer_sum", "reduce", integer_sum, exact=True),
    Operator("largest", "reduce", largest, exact=True),
    *(Operator(line.__name__, "attention", line) for line in (attention, attention_spelled)),
    *(
        Operator(line.__name__, "index", line, exact=True)
        for line in (embedding, index, gather, index_select)
    ),
    Operator("arange", "index", arange),
)
TABLE = Table(OPERATORS)
