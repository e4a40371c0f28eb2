"""Attention against fp64: sizes around tiles, masks, causal, shared heads, rows without a key."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from accuracy import assert_close
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels import attention_few
from torch_aio.kernels.attention import Attention
from torch_aio.kernels.attention_few import AttentionFew
from torch_aio.kernels.attention_mask import Masking
from torch_aio.kernels.attention_work import scratch_bytes
from torch_aio.kernels.panel import panel_columns

KINDS = {torch.float32: "float", torch.bool: "bool"}
# batch, heads, heads of k and v, rows, keys, width, width of v, splits
SIZES = [
    (1, 1, 1, 1, 1, 1, 1, 1),
    (2, 4, 2, 33, 17, 16, 16, 5),
    (1, 2, 2, 12, 64, 64, 64, 2),
    (1, 2, 1, 7, 300, 33, 31, 1),
    (2, 6, 3, 31, 33, 80, 40, 2),
    (1, 2, 2, 5, 0, 8, 8, 1),
    (1, 1, 1, 65, 129, 8, 70, 2),
]


def heads_first(*shape):
    """[batch, heads, length, width], a view of [batch, length, heads, width]."""
    batch, heads, length, width = shape
    return torch.randn(batch, length, heads, width).transpose(1, 2)


def strides(name, x):
    """The stride arguments of [batch, heads, rows, numbers]."""
    names = (f"{name}_outer", f"{name}_inner", f"{name}_row")
    return {n: s * x.element_size() for n, s in zip(names, x.stride(), strict=False)}


def attend(isa, q, k, v, mask=None, *, splits=1, fill=-math.inf, blocks=(0, 0), **options):
    """Run the kernel; the result is a view of [batch, rows, heads, width]."""
    batch, heads, rows, width = q.shape
    keys, values = v.shape[-2:]
    tile = options.pop("tile", max(isa.tile, key=lambda tile: tile[1]))
    context = options.pop("context", tile)
    columns, extra, masking = panel_columns(isa, tile), {}, Masking()
    if mask is not None:
        kind, mask = KINDS[mask.dtype], mask.expand(batch, heads, rows, keys)
        masking = Masking(kind, mask.stride(-2) == 0, tile[1])
        extra = {"mask": mask, **strides("mask", mask)}
        extra |= {"fill": fill} if kind == "bool" else {}
    spec = Attention(tile, context, values % panel_columns(isa, context) != 0, masking, **options)
    block_rows, block_keys = blocks[0] or columns, blocks[1] or 256
    work = scratch_bytes(isa, tile, context, masking, block_keys, width, values) // 4
    out = torch.full((batch, rows, heads, values), float("nan")).transpose(1, 2)
    run_kernel(spec, isa, batch * heads * -(-rows // block_rows), splits, q=q, **strides("q", q),
               k=k, **strides("k", k), v=v, **strides("v", v), o=out, **strides("o", out),
               heads=heads, group=heads // k.shape[1], sq=rows, sk=keys, d=width, dv=values,
               scale=1 / math.sqrt(width), block_rows=block_rows, block_keys=block_keys,
               work=torch.full((splits * work,), float("nan")), **extra)  # fmt: skip
    return out


def attend_few(isa, spec, q, k, v, mask=None, splits=1):
    """Run the kernel for few rows on heads of their own k and v."""
    batch, heads, rows, width = q.shape
    keys, values = v.shape[-2:]
    out = torch.full((batch, rows, heads, values), float("nan")).transpose(1, 2)
    extra = {}
    if mask is not None:
        mask = mask.expand(batch, heads, rows, keys)
        extra = {"mask": mask, **strides("mask", mask)}
        extra |= {"fill": -math.inf} if mask.dtype == torch.bool else {}
    work = splits * attention_few.scratch_bytes(isa, spec.rows, keys) // 4
    units = batch * heads * -(-rows // spec.rows)
    run_kernel(spec, isa, units, splits, q=q, **strides("q", q), k=k,
               **strides("k", k), v=v, **strides("v", v), o=out, **strides("o", out), heads=heads,
               count=rows, sk=keys, d=width, dv=values, scale=1 / math.sqrt(width),
               work=torch.full((work,), float("nan")), **extra)  # fmt: skip
    return out


def masks(batch, rows, keys):
    """Float masks with rows that see nothing, boolean ones broadcast over rows."""
    added = torch.randn(batch, 1, rows, keys)
    added[..., ::3] = -math.inf
    added[:, :, rows // 2] = -math.inf
    padding = torch.rand(batch, 1, 1, keys) > 0.3
    full = torch.rand(batch, 1, rows, keys) > 0.3
    return {"none": None, "float": added, "bool": padding, "full": full}


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", ["none", "float", "bool", "full", "causal"])
def test_attention_is_as_near_to_fp64_as_eager(isa, kind):
    """Sizes around lanes and tiles, keys in blocks; rows without a key are zero as in eager."""
    contexts = (isa.tile[0], isa.tile[-1]) if kind == "none" else isa.tile[:1]
    for context in contexts:
        for batch, heads, shared, rows, keys, width, values, splits in SIZES:
            q = heads_first(batch, heads, rows, width)
            k, v = heads_first(batch, shared, keys, width), heads_first(batch, shared, keys, values)
            mask, causal = masks(batch, rows, keys).get(kind), kind == "causal"
            options = {"is_causal": causal, "enable_gqa": heads != shared}
            wide = mask.double() if kind == "float" else mask
            ref = sdpa(q.double(), k.double(), v.double(), wide, **options)
            eager = sdpa(q, k, v, mask, **options)
            for blocks in ((0, 0), (isa.lanes(f32), 11)):
                y = attend(isa, q, k, v, mask, splits=splits, causal=causal, context=context,
                           blocks=blocks)  # fmt: skip
                assert_close(y, ref, eager, f"{rows}x{keys}x{width}")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_scores_far_apart_in_different_blocks(isa):
    """A later block of keys may outweigh all before it, or be nothing beside them."""
    q, k, v = (heads_first(1, 2, length, 20) for length in (19, 40, 40))
    rising = torch.logspace(-1, 1, 40)[:, None]
    for far in (k * rising, k * rising.flip(0)):
        ref, eager = sdpa(q.double(), far.double(), v.double()), sdpa(q, far, v)
        assert_close(attend(isa, q, far, v, blocks=(0, 9)), ref, eager)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_nothing_outside_of_the_operands_is_touched(isa):
    """Keys and values that end where memory ends, values that fill no register."""
    for values in (20, 3):
        q, k = (guarded(torch.randn(1, 1, 21, 16)) for _ in range(2))
        v = guarded(torch.randn(1, 1, 21, values))
        ref, eager = sdpa(q.double(), k.double(), v.double()), sdpa(q, k, v)
        assert_close(attend(isa, q, k, v), ref, eager)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", ["", "float", "bool"])
def test_few_rows_read_keys_and_values_as_they_lie(isa, kind):
    """One to five rows in units of one or four, any number of keys."""
    sizes = ((1, 1, 1, 1), (5, 33, 16, 64), (2, 600, 40, 70), (3, 0, 8, 8))
    for rows, keys, width, values in sizes:
        q, k, v = (heads_first(2, 3, *s) for s in ((rows, width), (keys, width), (keys, values)))
        mask = masks(2, rows, keys).get(kind)
        wide = mask.double() if kind == "float" else mask
        ref, eager = sdpa(q.double(), k.double(), v.double(), wide), sdpa(q, k, v, mask)
        for unit in (1, 4):
            y = attend_few(isa, AttentionFew(unit, kind), q, k, v, mask, splits=2)
            assert_close(y, ref, eager, f"{rows}x{keys}x{width}")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("fill", [-math.inf, -1e9, torch.finfo(torch.float32).min])
def test_plain_softmax_fills_and_keeps_nan(isa, fill):
    """The spelled out form: masked scores become ``fill``; a row of -inf is NaN."""
    q, k, v = (heads_first(1, 2, length, 20) for length in (9, 21, 21))
    mask = torch.rand(9, 21) > 0.4
    mask[4] = False
    y = attend(isa, q, k, v, mask, fill=fill, safe=False)

    def spelled(dtype):
        scores = (q.to(dtype) @ k.to(dtype).mT / math.sqrt(20)).masked_fill(~mask, fill)
        return scores.softmax(-1) @ v.to(dtype)

    assert_close(y, spelled(torch.float64), spelled(torch.float32))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_nan_of_keys_that_a_mask_hides(isa):
    """The operator adds -inf and NaN stays; the spelled out form puts -inf in its place."""
    q, k, v = (heads_first(1, 1, length, 16) for length in (4, 21, 21))
    k[0, 0, 5], k[0, 0, 20] = float("nan"), float("nan")
    mask = torch.ones(4, 21, dtype=torch.bool)
    mask[:, 5] = mask[:, 20] = False
    filled = (q @ k.mT / 4).masked_fill(~mask, -math.inf).softmax(-1) @ v
    for safe, want in ((True, sdpa(q, k, v, mask)), (False, filled)):
        assert want.isnan().all() == safe
        few = attend_few(isa, AttentionFew(4, "bool", safe), q, k, v, mask)
        many = attend(isa, q, k, v, mask, safe=safe)
        for y in (few, many):
            torch.testing.assert_close(y, want, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_nan_and_infinity_stay_in_their_rows(isa):
    """NaN in a query spoils its row only; NaN in a key spoils all rows of its head."""
    q, k, v = (heads_first(1, 2, length, 16) for length in (9, 21, 21))
    q[0, 0, 3, 2], k[0, 1, 5, 0] = float("nan"), float("inf")
    y = attend(isa, q, k, v)
    want = sdpa(q, k, v)
    torch.testing.assert_close(y[0, 0], want[0, 0], equal_nan=True)
    seen = (q[0, 1, :, 0] * k[0, 1, 5, 0]) < 0  # a score of -inf: the key is not seen
    torch.testing.assert_close(y[0, 1, seen], want[0, 1, seen])
