"""Elementwise operators and views in random programs: how each draws its arguments."""

from __future__ import annotations

from collections.abc import Callable

from random_graphs import Draw, Value
from random_program import BOOL, FLOAT, INT, LONG, Shape

ANY_NDIM = (2, 3, 4, 1, 0)
NUMBERS = ("2", "-1", "0.5", "3", "-2.25", "0")
LineOf = Callable[[Draw], "str | None"]

SMOOTH = (
    "torch.sigmoid({x})", "torch.tanh({x})", "F.silu({x})", "F.gelu({x})",
    "F.gelu({x}, approximate='tanh')", "torch.exp({x})", "torch.expm1({x})", "torch.exp2({x})",
    "torch.log({x})", "torch.log1p({x})", "torch.log2({x})", "torch.log10({x})",
    "torch.sqrt({x})", "torch.rsqrt({x})", "torch.reciprocal({x})", "torch.erf({x})",
    "torch.sin({x})", "torch.cos({x})", "F.hardswish({x})", "F.hardsigmoid({x})", "F.mish({x})",
    "F.leaky_relu({x}, 0.1)", "F.elu({x})", "F.softplus({x})", "{x} ** 2", "{x} ** 3", "{x} ** 0.5",
    "torch.square({x})",
)  # fmt: skip
SHARP = (
    "torch.relu({x})", "F.relu6({x})", "torch.abs({x})", "-{x}", "F.hardtanh({x})",
    "{x}.clamp(-0.5, 1.5)", "{x}.clamp(min=0.25)", "{x}.clamp(max=0.25)", "{x}.clone()",
    "{x}.contiguous()",
)  # fmt: skip
STEPS = ("torch.sign({x})", "torch.floor({x})", "torch.ceil({x})", "torch.trunc({x})",
         "torch.round({x})", "torch.isnan({x})", "torch.isinf({x})")  # fmt: skip
PAIRS = ("{a} + {b}", "{a} - {b}", "{a} * {b}", "torch.add({a}, {b}, alpha=2)", "{a} / {b}")


# ---- elementwise ----------------------------------------------------------------------------


def unary(text: str, *, exact_operand: bool = False) -> LineOf:
    """``text`` of one float tensor ``{x}``."""

    def line(d: Draw) -> str:
        x = d.value(lambda v: v.exact or not exact_operand, ndim=ANY_NDIM)
        return text.format(x=x.name)

    return line


def binary(text: str, dtypes: tuple = (FLOAT, FLOAT, LONG, INT)) -> LineOf:
    """``text`` of two tensors that broadcast, of mixed dtypes."""

    def line(d: Draw) -> str:
        a = d.value(dtypes=dtypes[:1] if d.flag() else dtypes, ndim=ANY_NDIM)
        b = d.beside(a, dtypes[:1] if d.flag() else dtypes)
        if d.rare(4):
            a, b = b, a
        return text.format(a=a.name, b=b.name)

    return line


def scalar(text: str, numbers: tuple[str, ...] = NUMBERS, dtypes: tuple = (FLOAT, LONG)) -> LineOf:
    """``text`` of a tensor and a Python number."""

    def line(d: Draw) -> str:
        return text.format(x=d.value(dtypes=dtypes, ndim=ANY_NDIM).name, n=d.of(numbers))

    return line


def compare(d: Draw) -> str:
    """A comparison with a tensor or a number; rounded values would compare by luck."""
    dtypes = (FLOAT, LONG, INT, BOOL)
    a = d.value(lambda v: v.exact, dtypes, ANY_NDIM)
    b = d.of(("0", "1", "0.5")) if d.flag() else d.beside(a, dtypes, exact=True).name
    return f"{a.name} {d.of(('<', '<=', '>', '>=', '==', '!='))} {b}"


def mask_of(d: Draw, x: Value) -> Value:
    """A mask that broadcasts with ``x``."""
    return d.beside(x, (BOOL,))


def where(d: Draw) -> str:
    a = d.value(dtypes=(FLOAT, LONG))
    mask = mask_of(d, a)
    b = d.of(NUMBERS) if d.flag() else d.beside(a).name
    return f"torch.where({mask.name}, {a.name}, {b})"


def masked_fill(d: Draw) -> str:
    x = d.value(ndim=(2, 3, 4, 1))
    return f"{x.name}.masked_fill({mask_of(d, x).name}, {d.of((*NUMBERS, '-torch.inf'))})"


def logic(d: Draw) -> str:
    """Bitwise and logical operators on masks."""
    a = d.value(dtypes=(BOOL,))
    text = d.of(("{a} & {b}", "{a} | {b}", "{a} ^ {b}", "torch.logical_and({a}, {b})", "~{a}"))
    return text.format(a=a.name, b=d.beside(a, (BOOL,)).name)


def bits(d: Draw) -> str:
    a = d.value(dtypes=(LONG, INT))
    b = d.of(("1", "3")) if d.flag() else d.beside(a, (LONG, INT)).name
    return f"{a.name} {d.of(('&', '|', '^'))} {b}"


def cast(d: Draw) -> str:
    """To another dtype; to integers only what is finite in every precision."""
    x = d.value(dtypes=(FLOAT, LONG, INT, BOOL), ndim=ANY_NDIM)
    if x.is_float and not (x.exact and x.plain.isfinite().all()):
        return f"{x.name}.to(f32)"
    return f"{x.name}.to({d.of(('f32', 'torch.int64', 'torch.int32', 'torch.bool'))})"


def addcmul(d: Draw) -> str:
    a = d.value()
    return f"torch.addcmul({a.name}, {d.beside(a).name}, {d.beside(a).name}, value={d.of(NUMBERS)})"


# ---- views ----------------------------------------------------------------------------------


def any_value(d: Draw, least: int = 1) -> Value:
    return d.value(dtypes=(FLOAT, FLOAT, LONG, BOOL), ndim=tuple(n for n in ANY_NDIM if n >= least))


def dim_of(d: Draw, x: Value) -> int:
    return d.integer(-len(x.shape), len(x.shape) - 1)


def transpose(d: Draw) -> str:
    x = any_value(d, 2)
    return f"{x.name}.transpose({dim_of(d, x)}, {dim_of(d, x)})"


def permute(d: Draw) -> str:
    x = any_value(d, 2)
    order = list(range(len(x.shape)))
    for i in range(len(order) - 1, 0, -1):
        j = d.integer(0, i)
        order[i], order[j] = order[j], order[i]
    return f"{x.name}.permute({', '.join(map(str, order))})"


def reshape(d: Draw) -> str:
    """Two neighbouring dimensions become one, or one becomes two, or all one."""
    x = any_value(d)
    i = d.integer(0, len(x.shape) - 1)
    way = d.of(("flatten", "merge", "divide"))
    if way == "merge" and i + 1 < len(x.shape):
        merged = x.shape[i] * x.shape[i + 1]
        return f"{x.name}.reshape({(*x.shape[:i], merged, *x.shape[i + 2 :])})"
    factor = next((f for f in (2, 3, 5) if x.shape[i] and x.shape[i] % f == 0), 0)
    if way == "divide" and factor:
        return (
            f"{x.name}.reshape({(*x.shape[:i], factor, x.shape[i] // factor, *x.shape[i + 1 :])})"
        )
    return f"{x.name}.flatten()" if way == "flatten" else f"{x.name}.reshape(-1, 1)"


def squeeze(d: Draw) -> str:
    x = any_value(d)
    return d.of(("{x}.unsqueeze({i})", "{x}.squeeze({i})", "{x}.squeeze()")).format(
        x=x.name, i=dim_of(d, x)
    )


def expand(d: Draw) -> str:
    x = any_value(d, 0)
    sizes = [d.integer(2, 4) if n == 1 else n for n in x.shape]
    return f"{x.name}.expand({(*((d.integer(1, 3),) if d.flag() else ()), *sizes)})"


def narrow(d: Draw) -> str:
    """A slice of one dimension: steps, starts and ends from either side, past the end, empty."""
    x = any_value(d)
    dim = d.integer(0, len(x.shape) - 1)
    n = x.shape[dim]
    start, end = (d.of(("", *(str(v) for v in range(-n - 1, n + 2)))) for _ in range(2))
    step = d.of(("", "2", "3", "7"))
    return f"{x.name}[{':, ' * dim}{start}:{end}:{step}]"


def select(d: Draw) -> str | None:
    x = any_value(d)
    dim = d.integer(0, len(x.shape) - 1)
    n = x.shape[dim]
    return f"{x.name}.select({dim}, {d.integer(-n, n - 1)})" if n else None


def split(d: Draw) -> str | None:
    x = any_value(d)
    dim, parts = d.integer(0, len(x.shape) - 1), d.integer(2, 3)
    if x.shape[dim] < parts:
        return None
    text = d.of(("torch.chunk({x}, {n}, {d})[1]", "torch.split({x}, {n}, {d})[0]"))
    return text.format(x=x.name, n=parts, d=dim)


def cat(d: Draw) -> str | None:
    a = any_value(d)
    dim = d.integer(0, len(a.shape) - 1)

    def fits(v: Value) -> bool:
        return len(v.shape) == len(a.shape) and all(
            i == dim or m == n for i, (m, n) in enumerate(zip(v.shape, a.shape, strict=True))
        )

    def shape() -> Shape:
        return (*a.shape[:dim], d.size(), *a.shape[dim + 1 :])

    rest = [d.value(fits, (a.dtype,), range(1, 5), shape).name for _ in range(d.integer(1, 2))]
    return f"torch.cat([{', '.join([a.name, *rest])}], {dim})"


def stack(d: Draw) -> str:
    a = any_value(d, 0)
    b = d.value(lambda v: v.shape == a.shape, (a.dtype,), range(5), lambda: a.shape)
    return f"torch.stack([{a.name}, {b.name}], {d.integer(0, len(a.shape))})"
