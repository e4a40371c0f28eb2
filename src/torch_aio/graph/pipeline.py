"""The passes every graph goes through, in order, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial, update_wrapper

from torch.fx import GraphModule

from torch_aio import log
from torch_aio.compiling import stage
from torch_aio.config import Options
from torch_aio.graph.claim import claim
from torch_aio.graph.cut import cut
from torch_aio.graph.drop_copies import drop_copies
from torch_aio.graph.drop_masks import drop_masks
from torch_aio.graph.fold_batch_norm import fold_batch_norm
from torch_aio.graph.fuel import limited
from torch_aio.graph.fuse_activation import fuse_activation
from torch_aio.graph.fuse_attention import fuse_attention
from torch_aio.graph.fuse_norm import fuse_norm
from torch_aio.graph.fuse_rope import fuse_rope
from torch_aio.graph.fuse_shuffle import fuse_shuffle
from torch_aio.graph.hoist_constants import hoist_constants
from torch_aio.graph.layout import layout
from torch_aio.graph.merge_linear import merge_linear
from torch_aio.graph.names import name_operators
from torch_aio.graph.normalise import normalise
from torch_aio.graph.quantise import quantise
from torch_aio.graph.reinplace import reinplace
from torch_aio.graph.share_heads import share_heads
from torch_aio.graph.simplify import simplify
from torch_aio.graph.widen import widen

Pass = Callable[[GraphModule], int]
REWRITES: tuple[Pass, ...] = (
    normalise,
    fold_batch_norm,
    fuse_norm,
    fuse_rope,
    fuse_activation,
    fuse_attention,
    widen,
    simplify,
    share_heads,
    drop_masks,
    drop_copies,
    fuse_shuffle,
    name_operators,
    merge_linear,
    reinplace,
    hoist_constants,
)
DECISIONS: tuple[Pass, ...] = (
    claim,
    cut,
    layout,
)
PIPELINE: tuple[Pass, ...] = (*REWRITES, *DECISIONS)


def chosen(options: Options, back: Collection[str] = ()) -> tuple[Pass, ...]:
    """The pipeline without the passes that the options switch off, with those they switch on.

    Filters mark before linears are merged: layers that differ in precision stay apart. ``back``
    names nodes that PyTorch runs faster.
    """
    wanted: dict[Pass, bool] = {merge_linear: options.merge_linear}
    claims = update_wrapper(partial(claim, back=back), claim)
    steps = tuple(claims if s is claim else s for s in PIPELINE if wanted.get(s, True))
    if not options.int8_filter:
        return steps
    marks = update_wrapper(partial(quantise, pattern=options.int8_filter), quantise)
    after = PIPELINE[PIPELINE.index(merge_linear) :]
    place = next(n for n, step in enumerate(steps) if step in after)
    return (*steps[:place], marks, *steps[place:])


@dataclass
class Report:
    """How often each pass fired."""

    fired: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All rewrites together: the fuel that this run needed."""
        return sum(self.fired.values())


@stage("passes")
def run(gm: GraphModule, fuel: int | None = None, passes: tuple[Pass, ...] = PIPELINE) -> Report:
    """Run the pipeline on ``gm`` in place; at most ``fuel`` rewrites fire.

    A wrong answer is found by bisection over ``fuel``. Raises RuntimeError naming the pass after
    which the graph is malformed.
    """
    report = Report()
    with limited(fuel):
        for step in passes:
            name = step.__name__
            report.fired[name] = step(gm)
            if report.fired[name]:
                verify(gm, name)
            if log.logger.isEnabledFor(log.ALL):
                gm.recompile()
                log.logger.log(
                    log.ALL, "graph after %s (fired %d):\n%s", name, report.fired[name], gm.code
                )
    gm.recompile()
    return report


def verify(gm: GraphModule, name: str) -> None:
    """Check the graph's form: sound as FX, and every node knows its spec."""
    try:
        gm.graph.lint()
    except RuntimeError as error:
        raise RuntimeError(f"after {name}: {error}") from error
    for node in gm.graph.nodes:
        if node.op != "output" and "spec" not in node.meta:
            raise RuntimeError(f"after {name}: {node.format_node()} has no spec")
