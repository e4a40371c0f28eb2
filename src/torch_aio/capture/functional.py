"""What Ampere's programs call on torch: ``F.layer_norm`` with a sixth argument, ``torch.aio_rope``.

TorchScript compiles these functions from their text, so they are annotated in its words.
"""

from typing import List, Optional, Union  # noqa: UP035 - TorchScript's words

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from torch_aio.capture import eager


def layer_norm(
    input: Tensor,
    normalized_shape: List[int],  # noqa: UP006
    weight: Optional[Tensor] = None,  # noqa: UP045
    bias: Optional[Tensor] = None,  # noqa: UP045
    eps: float = 1e-5,
    rms: bool = False,
) -> Tensor:
    """Apply layer normalization over the last dimensions; root mean square norm with ``rms``.

    See torch.nn.LayerNorm; with ``rms`` see torch.nn.RMSNorm, and ``bias`` must be None.
    """
    if rms and bias is not None:
        raise RuntimeError("layer_norm with rms=True is RMS norm, which takes no bias")
    if has_torch_function_variadic(input, weight, bias):
        if rms:
            return handle_torch_function(
                layer_norm, (input, weight, bias), input, normalized_shape,
                weight=weight, bias=bias, eps=eps, rms=rms,
            )  # fmt: skip
        return handle_torch_function(
            layer_norm, (input, weight, bias), input, normalized_shape,
            weight=weight, bias=bias, eps=eps,
        )  # fmt: skip
    if not rms:
        return torch.layer_norm(
            input, normalized_shape, weight, bias, eps, torch.backends.cudnn.enabled
        )
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return eager.rms_norm(input, normalized_shape, weight, eps)
    return torch.rms_norm(input, normalized_shape, weight, eps)


def aio_rope(
    x: Tensor,
    position_ids: Tensor,
    theta: Union[int, float, complex],  # noqa: PYI041, UP007 - "number" in TorchScript
) -> Tensor:
    """Rotate ``x`` ``[batch, heads, length, width]`` by positions, as LLaMA's models embed them.

    ``position_ids``: integers ``[batch or 1, length]``. The pair of numbers i and i + width / 2 of
    a head turns by position * theta ** (-2 i / width); computed in f32, the result in the dtype of
    x. For queries and keys, whose heads may differ in number. No backward.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        return eager.rope(x, position_ids, theta)
    return torch.ops.aio.rope(x, position_ids, theta)  # type: ignore[no-any-return]


# AOTAutograd's cache knows functions of torch by these names, and is bypassed for others.
layer_norm.__module__ = "torch.nn.functional"
