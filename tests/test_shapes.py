"""Shape inference against eager PyTorch: shapes, dtypes and strides, over a table of calls."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap

import pytest
import torch

from torch_aio.ir.shapes import infer, shape_function, spec_of
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Guards, evaluate, symbol

aten = torch.ops.aten


def samples(*shape: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """The same values in several layouts: row-major, permuted, strided, offset, expanded ..."""
    size = 1
    for s in shape:
        size *= s
    x = (torch.arange(size) % 7 + 1).reshape(shape).to(dtype)
    layouts = [x]
    rank = len(shape)
    if rank >= 2:
        layouts.append(x.transpose(-1, -2).contiguous().transpose(-1, -2))
        layouts.append(torch.cat([x, x], -1)[..., : shape[-1]])
        layouts.append(torch.stack([x, x], -1)[..., 0])
        layouts.append(x[:1].expand(shape) if shape[0] != 1 else x)
    if rank == 4:
        layouts.append(x.contiguous(memory_format=torch.channels_last))
        layouts.append(x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2))
    if rank == 5:
        layouts.append(x.contiguous(memory_format=torch.channels_last_3d))
    return layouts


def flat(value):
    if isinstance(value, torch.Tensor):
        return spec_of(value)
    if isinstance(value, (list, tuple)):
        return tuple(flat(v) for v in value)
    return value


def specs(value):
    if isinstance(value, torch.Tensor):
        return spec_of(value)
    if isinstance(value, (list, tuple)):
        return type(value)(specs(v) for v in value)
    return value


def agree(target, *args, **kwargs) -> None:
    """``infer`` says of a call what eager does."""
    with torch.no_grad():
        expected = flat(target(*args, **kwargs))
    assert shape_function(target) is not None, target
    got = infer(target, [specs(a) for a in args], {k: specs(v) for k, v in kwargs.items()})
    assert flat(got) == expected, (target, [specs(a) for a in args], kwargs)


UNARY = (
    "relu gelu silu hardswish hardsigmoid mish sigmoid tanh exp sqrt rsqrt abs neg erf floor log "
    "reciprocal leaky_relu elu softplus logical_not isnan clone contiguous cos sin detach relu6 "
    "square selu log_sigmoid"
).split()
SHAPES = [(), (5,), (0,), (1,), (3, 4), (1, 4), (3, 1), (0, 3), (2, 3, 4), (2, 0, 4), (2, 3, 4, 5)]
MORE = [(1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1), (2, 3, 4, 1), (1, 8, 1, 6)]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    packet = getattr(aten, name)
    for shape in SHAPES + MORE:
        for x in samples(*shape):
            agree(packet.default, x)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "neg", "relu", "abs", "logical_not", "sqrt"])
def test_unary_promotion(name):
    for dtype in (torch.int64, torch.float64, torch.float16, torch.int32):
        for x in samples(3, 4, dtype=dtype):
            agree(getattr(aten, name).default, x)


PAIRS = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 3, 4), ()),
    ((), (3, 4)),
    ((1, 4), (3, 1)),
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (1, 3, 1, 1)),
    ((2, 3, 4, 5), (2, 3, 1, 1)),
    ((1, 3, 4, 5), (2, 1, 4, 1)),
    ((0, 4), (1, 4)),
    ((1,), (0,)),
]


@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "eq", "lt", "logical_and"])
def test_binary_layouts(name):
    packet = getattr(aten, name)
    op = getattr(packet, "Tensor", None) or packet.default
    for a, b in PAIRS:
        for x, y in itertools.product(samples(*a), samples(*b)):
            agree(op, x, y)


DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
]


@pytest.mark.parametrize("name", ["add", "mul", "div", "eq", "pow", "remainder", "bitwise_and"])
def test_binary_promotion(name):
    packet = getattr(aten, name)
    op = packet.Tensor_Tensor if name == "pow" else packet.Tensor
    for d, e in itertools.product(DTYPES, DTYPES):
        if name == "bitwise_and" and (d.is_floating_point or e.is_floating_point):
            continue
        if name in ("pow", "remainder") and torch.bool in (d, e):
            continue
        for a, b in [((3, 4), (3, 4)), ((3, 4), ()), ((), (3, 4)), ((), ())]:
            x = samples(*a, dtype=d)[-1]
            y = samples(*b, dtype=e)[0]
            agree(op, x, y)


@pytest.mark.parametrize("value", [2, 2.5, True])
@pytest.mark.parametrize("name", ["add", "mul", "div", "sub", "eq", "gt"])
def test_scalars(name, value):
    if name == "sub" and value is True:
        pytest.skip("eager refuses it")
    op = (
        getattr(aten, name).Tensor
        if name in ("add", "mul", "div", "sub")
        else getattr(aten, name).Scalar
    )
    for dtype in (torch.int64, torch.float32, torch.float16, torch.float64):
        for shape in ((), (3, 4), (2, 3, 4, 5), (0, 2)):
            for x in samples(*shape, dtype=dtype):
                agree(op, x, value)


def x4(dtype=torch.float32):
    return samples(2, 3, 4, 5, dtype=dtype)


def conv_cases():
    weights = [
        torch.randn(6, 3, 3, 2),
        torch.randn(6, 3, 3, 2).to(memory_format=torch.channels_last),
    ]
    for x in [*samples(2, 3, 8, 7), *samples(1, 3, 8, 7)]:
        for w in weights:
            yield aten.conv2d.default, (x, w, torch.randn(6), [2, 1], [1, 1], [1, 1], 1)
        yield aten.conv2d.default, (x, weights[0], None, [1, 1], [2, 2], [2, 2], 1)
        yield aten.conv2d.default, (x, torch.randn(6, 1, 3, 3), None, [1, 1], [1, 1], [1, 1], 3)
        yield aten.conv2d.default, (x, torch.randn(4, 3, 1, 1))
        yield aten.conv2d.padding, (x, weights[0], None, [1, 1], "same", [1, 1], 1)
        yield aten.conv2d.padding, (x, weights[0], None, [2, 1], "valid", [1, 1], 1)
        yield (
            aten.conv_transpose2d.input,
            (x, torch.randn(3, 4, 3, 3), None, [2, 2], [1, 1], [1, 1], 1, [1, 1]),
        )
        yield (
            aten.convolution.default,
            (x, weights[0], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        )
        yield (
            aten._convolution.default,
            (
                x,
                weights[0],
                None,
                [1, 1],
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                1,
                False,
                False,
                True,
                True,
            ),
        )
    for x in samples(2, 3, 16):
        yield aten.conv1d.default, (x, torch.randn(5, 3, 3), None, [2], [1], [1], 1)
        yield aten.conv1d.default, (x, torch.randn(5, 3, 1))
    for x in samples(2, 3, 4, 5, 6):
        yield aten.conv3d.default, (x, torch.randn(4, 3, 2, 2, 2))
    yield aten.conv2d.default, (torch.randn(3, 8, 7), weights[0])
    yield aten.conv2d.default, (torch.randn(2, 0, 8, 7), torch.randn(4, 0, 3, 3))


def pool_cases():
    for x in [*x4(), *samples(1, 4, 6, 6), *samples(2, 1, 5, 5), torch.randn(3, 6, 6)]:
        yield aten.max_pool2d.default, (x, [2, 2], [2, 2], [1, 1], [1, 1], True)
        yield aten.max_pool2d.default, (x, [3, 3], [], [0, 0])
        yield aten.max_pool2d_with_indices.default, (x, [2, 2], [1, 1])
        yield aten.avg_pool2d.default, (x, [3, 2], [2, 2], [1, 1], True)
        for size in ([1, 1], [2, 3], [4, 5]):
            yield aten.adaptive_avg_pool2d.default, (x, size)
        yield (
            aten.upsample_nearest2d.vec,
            (x.reshape(1, *x.shape) if x.ndim == 3 else x, None, [2.0, 2.0]),
        )
        yield (
            aten.upsample_bilinear2d.vec,
            (x.reshape(1, *x.shape) if x.ndim == 3 else x, [7, 9], False, None),
        )
        yield aten.constant_pad_nd.default, (x, [1, 2, 0, 1])
        yield aten.constant_pad_nd.default, (x, [-1, 2])
        yield aten.pad.default, (x, [1, 2, 1, 1], "reflect")
        yield aten.reflection_pad2d.default, (x, [1, 1, 1, 1])
        yield aten.replication_pad2d.default, (x, [1, 1, 1, 1])
    for x in samples(2, 3, 16):
        yield aten.max_pool1d.default, (x, [2])
        yield aten.avg_pool1d.default, (x, [2])
        yield aten.adaptive_avg_pool1d.default, (x, [4])
        yield aten.pad.default, (x, [1, 2], "reflect")


def reduction_cases():
    for x in [*x4(), *samples(3, 4), *samples(2, 3, 4)]:
        last = x.ndim - 1
        for keep in (False, True):
            yield aten.sum.dim_IntList, (x, [0, last], keep)
            yield aten.mean.dim, (x, [-1], keep)
            yield aten.amax.default, (x, [0], keep)
            yield aten.max.dim, (x, 1, keep)
            yield aten.min.dim, (x, -1, keep)
            yield aten.argmax.default, (x, 1, keep)
            yield aten.any.dim, (x, 1, keep)
            yield aten.var.correction, (x, [1])
            yield aten.linalg_vector_norm.default, (x, 2, [1], keep)
            yield aten.logsumexp.default, (x, [1], keep)
            yield aten.prod.dim_int, (x, 1, keep)
            yield aten.std.dim, (x, [1], True, keep)
            yield aten.norm.ScalarOpt_dim, (x, 2, [1], keep)
        for name in ("sum", "mean", "max", "min", "any", "all", "prod", "argmax", "std", "var"):
            yield getattr(aten, name).default, (x,)
        yield aten.softmax.int, (x, 1)
        yield aten.softmax.int, (x, -1, torch.float64)
        yield aten._softmax.default, (x, -1, False)
        yield aten.log_softmax.int, (x, 0)
        yield aten.cumsum.default, (x, 1)
        yield aten.layer_norm.default, (x, [x.shape[-1]])
        yield aten.native_layer_norm.default, (x, [x.shape[-1]], None, None, 1e-5)
        yield aten.rms_norm.default, (x, [x.shape[-1]])
        yield aten.sort.default, (x,)
        yield aten.topk.default, (x, 2)
        yield aten.argsort.default, (x,)
        yield aten.glu.default, (x, 0) if x.shape[0] % 2 == 0 else (x, -1)
    for dtype in (torch.int64, torch.int32, torch.bool):
        for name in ("sum", "any", "prod"):
            yield getattr(aten, name).default, (torch.ones(3, 4).to(dtype),)
        yield aten.cumsum.default, (torch.ones(3, 4).to(dtype), 0)
        yield aten.sum.dim_IntList, (torch.ones(3, 4).to(dtype), [1])


def norm_cases():
    for x in [*x4(), *samples(1, 3, 4, 5)]:
        four = (torch.ones(3), torch.ones(3), torch.zeros(3), torch.ones(3))
        yield aten.batch_norm.default, (x, *four, False, 0.1, 1e-5, True)
        yield aten._native_batch_norm_legit_no_training.default, (x, *four, 0.1, 1e-5)
    for x in samples(2, 4, 3, 5):
        yield aten.group_norm.default, (x, 2)
        yield aten.prelu.default, (x, torch.ones(4))
        yield aten.prelu.default, (x, torch.ones(1))
    for x in samples(2, 3, 8):
        yield aten.batch_norm.default, (x, *four, False, 0.1, 1e-5, True)
    for x in samples(4, 3):
        yield aten.batch_norm.default, (x, *four, False, 0.1, 1e-5, True)
    for x in samples(2, 4, 6):
        yield aten.group_norm.default, (x, 2)


def product_cases():
    for x in [
        *samples(5, 6),
        *samples(2, 5, 6),
        *samples(2, 3, 5, 6),
        torch.randn(6),
        torch.randn(0, 6),
    ]:
        yield aten.linear.default, (x, torch.randn(7, 6), torch.randn(7))
        yield aten.linear.default, (x, torch.randn(6, 7).t())
        for y in [*samples(6, 4), torch.randn(6)]:
            yield aten.matmul.default, (x, y)
    for x in samples(2, 3, 5, 6):
        for y in [*samples(2, 3, 6, 4), *samples(3, 6, 4), *samples(2, 1, 6, 1)]:
            yield aten.matmul.default, (x, y)
    for a in [*samples(5, 6), torch.randn(6)]:
        for b in [*samples(2, 6, 4), *samples(2, 3, 6, 4)]:
            yield aten.matmul.default, (a, b)
    for a, b in itertools.product(samples(2, 5, 6), samples(2, 6, 4)):
        yield aten.bmm.default, (a, b)
        yield aten.baddbmm.default, (torch.randn(2, 5, 4), a, b)
    for a, b in itertools.product(samples(5, 6), samples(6, 4)):
        yield aten.mm.default, (a, b)
        yield aten.addmm.default, (torch.randn(4), a, b)
    yield aten.mv.default, (torch.randn(3, 4), torch.randn(4))
    yield aten.dot.default, (torch.randn(4), torch.randn(4))


def attention_cases():
    def heads(length, width=8):
        x = torch.randn(2, length, 4, width).transpose(1, 2)
        return [x, x.contiguous()]

    for q, k, v in itertools.product(heads(5), heads(7), heads(7)):
        yield aten.scaled_dot_product_attention.default, (q, k, v)
        yield aten.scaled_dot_product_attention.default, (q, k, v, torch.randn(5, 7))
        yield aten.scaled_dot_product_attention.default, (q, k, v, torch.ones(2, 1, 5, 7).bool())
        yield aten.scaled_dot_product_attention.default, (q, k, heads(7, 6)[0])
        yield aten.scaled_dot_product_attention.default, (q, q, q, None, 0.0, True)
    three = torch.randn(4, 5, 8)
    yield aten.scaled_dot_product_attention.default, (three, three, three)
    yield aten.scaled_dot_product_attention.default, (torch.randn(2, 4, 0, 8), q, q)


def view_cases():
    for x in [*x4(), *samples(1, 3, 4, 5)]:
        for dim in range(4):
            yield aten.select.int, (x, dim, -1)
            yield aten.slice.Tensor, (x, dim, 1, 3, 1)
            yield aten.slice.Tensor, (x, dim, -2, 2**63 - 1, 2)
            yield aten.slice.Tensor, (x, dim, 5, 2, 1)
            yield aten.unsqueeze.default, (x, dim)
            yield aten.squeeze.dim, (x, dim)
            yield aten.split.Tensor, (x, 2, dim)
            yield aten.chunk.default, (x, 2, dim)
            yield aten.unbind.int, (x, dim)
            yield aten.transpose.int, (x, 0, dim)
            yield aten.flatten.using_ints, (x, dim, -1)
            yield aten.index_select.default, (x, dim, torch.tensor([0, 0]))
            yield aten.flip.default, (x, [dim])
            yield aten.narrow.default, (x, dim, 0, 1)
        yield aten.unsqueeze.default, (x, -1)
        yield aten.squeeze.default, (x,)
        yield aten.permute.default, (x, [0, 2, 3, 1])
        yield aten.reshape.default, (x, [-1, 5])
        yield aten.reshape.default, (x, [x.shape[0], 3, 20])
        yield aten.reshape.default, (x, [x.shape[0], -1])
        yield aten.reshape.default, (x, [x.shape[0], 3, 2, 2, 5])
        yield aten.expand.default, (x, [7, *x.shape])
        yield aten.expand.default, (x, [1, -1, -1, -1, -1])
        yield aten.expand.default, (x[:, :1], [-1, 6, -1, -1])
        yield aten.clone.default, (x,), {"memory_format": torch.contiguous_format}
        yield aten.contiguous.default, (x,), {"memory_format": torch.channels_last}
        yield aten.repeat.default, (x, [2, 1, 1, 1, 3])
        yield aten.roll.default, (x, [1], [0])
        yield aten.movedim.int, (x, 1, -1)
        yield aten.unfold.default, (x, 3, 2, 1)
        yield aten.diagonal.default, (x, 0, 2, 3)
        yield aten._to_copy.default, (x,), {"dtype": torch.float64}
        yield aten.to.dtype, (x, torch.float32)
        yield aten.to.dtype, (x, torch.int64)
        yield aten.split_with_sizes.default, (x, [1, 2, 2], 3)
        yield aten.masked_fill.Scalar, (x, x > 3, 0.0)
        yield aten.masked_fill.Scalar, (x[:, :1], x > 3, 0.0)
        yield aten.where.self, (x > 3, x, torch.tensor(1.0))
        yield aten.where.self, (x > 3, x, x.double())
        yield aten.where.ScalarOther, (x > 3, x, 1.0)
        yield aten.clamp.default, (x, 0, 1)
        yield aten.pow.Tensor_Scalar, (x, 2)
        yield aten.zeros_like.default, (x,)
        yield aten.new_zeros.default, (x, [2, 3])
        yield aten.tril.default, (x,)
        yield aten.lerp.Scalar, (x, x, 0.5)
        yield aten.addcmul.default, (x, x, x)
    yield aten.view.default, (torch.randn(2, 6), [2, 2, 3])
    yield aten.view.default, (torch.randn(2, 0), [0, 5])
    yield aten.t.default, (torch.randn(2, 3),)
    yield aten.pixel_shuffle.default, (torch.randn(1, 8, 3, 3), 2)


def lookup_cases():
    i = torch.tensor([[0, 1], [2, 0]])
    for x in samples(3, 4, 5):
        yield aten.index.Tensor, (x, [i])
        yield aten.index.Tensor, (x, [None, i])
        yield aten.index.Tensor, (x, [i, i])
        yield aten.index.Tensor, (x, [i, None, i])
        yield aten.index.Tensor, (x, [None, i[:, :1], i[0]])
        yield aten.index.Tensor, (x, [None, None, i.t()])
        yield aten.gather.default, (x, 1, torch.zeros(2, 3, 4, dtype=torch.int64))
        yield aten.cat.default, ([x, x], 1)
        yield aten.stack.default, ([x, x], 1)
        yield aten.index_put.default, (x, [i], torch.tensor(1.0))
        yield aten.scatter.src, (x, 0, torch.zeros(2, 2, 2, dtype=torch.int64), x)
        yield aten.select_scatter.default, (x, x[0], 0, 0)
        yield aten.slice_scatter.default, (x, x[:1], 0, 0, 1)
        yield aten.index_add.default, (x, 0, torch.tensor([0]), x[:1])
        yield aten.index_copy.default, (x, 0, torch.tensor([0]), x[:1])
    for x, y in itertools.product(x4(), x4()):
        yield aten.cat.default, ([x, y], 1)
        yield aten.stack.default, ([x, y], -1)
    yield aten.cat.default, ([torch.randn(2), torch.ones(2).long(), torch.randn(0)],)
    for i in (torch.tensor(1), torch.tensor([1, 2]), torch.ones(2, 3).long()):
        yield aten.embedding.default, (torch.randn(4, 6), i)
    yield aten.one_hot.default, (torch.ones(2, 3).long(), 4)
    yield aten.repeat_interleave.self_int, (torch.randn(2, 3), 2, 1)
    yield (
        aten.embedding_bag.padding_idx,
        (
            (
                torch.randn(4, 6),
                torch.tensor([0, 1, 2]),
                torch.tensor([0, 2]),
                False,
                0,
                False,
                None,
                False,
                None,
            )
        ),
    )


def creation_cases():
    yield aten.arange.default, (5,)
    yield aten.arange.default, (5.5,)
    yield aten.arange.start, (2, 7)
    yield aten.arange.start_step, (2, 9, 2)
    yield aten.arange.start_step, (9, 2, -3)
    yield aten.arange.start_step, (0, 1, 0.25)
    yield aten.arange.default, (5,), {"dtype": torch.float32}
    yield aten.zeros.default, ([2, 3],)
    yield aten.ones.default, ([2, 3],), {"dtype": torch.bool}
    yield aten.full.default, ([2], 1)
    yield aten.full.default, ([2], 1.0)
    yield aten.full.default, ([2], True)
    yield aten.scalar_tensor.default, (1,)
    yield aten.linspace.default, (0, 1, 5)
    yield aten.eye.default, (3,)


def recurrent_cases():
    state = [torch.randn(2, 4), torch.randn(2, 4)]
    weights = (torch.randn(16, 3), torch.randn(16, 4), torch.randn(16), torch.randn(16))
    yield aten.lstm_cell.default, (torch.randn(2, 3), state, *weights)


TABLE = (
    conv_cases,
    pool_cases,
    reduction_cases,
    norm_cases,
    product_cases,
    attention_cases,
    view_cases,
    lookup_cases,
    creation_cases,
    recurrent_cases,
)


@pytest.mark.parametrize("cases", TABLE, ids=lambda f: f.__name__)
def test_table(cases):
    for target, args, *kwargs in cases():
        agree(target, *args, **(kwargs[0] if kwargs else {}))


def test_symbolic_sizes_flow_through():
    """Sizes that are symbols give expressions whose values are eager's sizes and strides."""
    n = symbol("n")
    guards = Guards({"n": 9})
    with guards.active():
        x = TensorSpec((2, n, 16), torch.float32, (16 * n, 16, 1))
        y = infer(aten.linear.default, [x, spec_of(torch.randn(16, 16)), None], {})
        y = infer(aten.view.default, [y, [2, n, 4, 4]], {})
        y = infer(aten.transpose.int, [y, 1, 2], {})
        z = infer(aten.scaled_dot_product_attention.default, [y, y, y], {})
        z = infer(aten.transpose.int, [z, 1, 2], {})
        z = infer(aten.reshape.default, [z, [2, n, 16]], {})
        z = infer(aten.add.Tensor, [z, x], {})
        c = infer(aten.cat.default, [[z, z], 1], {})
    assert z == x
    assert isinstance(c.shape[1], Expr)
    assert evaluate(c.shape[1], {"n": 9}) == 18
    assert all(guards.holds({"n": k}) for k in range(2, 100))


def test_symbolic_unknown_operator_is_named():
    x = TensorSpec((symbol("n"),), torch.float32, (1,))
    with pytest.raises(NotImplementedError, match="histc"):
        infer(aten.histc.default, [x], {})


def test_unknown_operator_runs_on_meta():
    x = torch.randn(2, 3, 4)
    assert infer(aten.renorm.default, [spec_of(x), 2, 0, 1.0], {}) == spec_of(x)


def test_wrong_shapes_raise():
    with pytest.raises(ValueError, match="broadcast"):
        infer(aten.add.Tensor, [spec_of(torch.ones(2)), spec_of(torch.ones(3))], {})
    with pytest.raises(ValueError, match="inner sizes"):
        infer(aten.mm.default, [spec_of(torch.ones(2, 3)), spec_of(torch.ones(2, 3))], {})


def test_infers_whole_models_without_heavy_imports():
    """A ResNet and a BERT through the TorchScript door import neither sympy nor torch._dynamo."""
    pytest.importorskip("torchvision")
    code = textwrap.dedent("""
        import sys, warnings
        warnings.simplefilter("ignore")
        import torch, torchvision
        from transformers import BertConfig, BertModel
        before = set(sys.modules)
        from torch_aio.capture.ts_capture import Source, trace
        from torch_aio.ir.shapes import spec_of
        from torch_aio.capture.ts_call import Leaf

        def walk(model, *inputs):
            frozen = torch.jit.freeze(torch.jit.trace(model.eval(), inputs, strict=False))
            leaves = [Leaf(i) for i in range(len(inputs))]
            loaded = {m for m in ("sympy", "torch._dynamo") if m in sys.modules}
            specs = [spec_of(x) for x in inputs]
            trace(Source(frozen.graph, "m", True), (leaves, []), specs, [], None)
            now = {m for m in ("sympy", "torch._dynamo") if m in sys.modules}
            assert now == loaded, now - loaded

        walk(torchvision.models.resnet18(), torch.randn(1, 3, 64, 64))
        config = BertConfig(
            num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64
        )
        config.return_dict = False
        walk(BertModel(config), torch.ones(1, 8).long(), torch.ones(1, 8).long())
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
