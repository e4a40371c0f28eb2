"""Models in float16 and bfloat16: the operators of the table and small networks, on our kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accuracy import assert_close, reference, run
from operator_cases import FAMILIES, Case
from test_operators import DOORS, Bundle, assert_ours, frozen
from torch_aio.engine.compiled import observed

def narrow(case: Case, n: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in case.inputs(n))

@pytest.mark.parametrize("case", [c for f in FAMILIES for c in FAMILIES[f]], ids=str)
def test_x(case):
    dtype=torch.float16
    model = Bundle([case], [len(case.inputs(5))]).eval().to(dtype)
    inputs = narrow(case, 5, dtype)
    try: eager = run(model, inputs)
    except Exception as e:
        pytest.skip("eager "+str(e)[:60])
    with observed() as graphs, torch.no_grad():
        ours = frozen(model, inputs)(*inputs)
    wide = reference(model, *inputs)
    assert_close(ours, wide, eager, str(case))
    assert_ours(graphs)
