"""Whether torch.compile takes a function whole."""

from collections.abc import Callable

import torch
from torch._dynamo.utils import counters


def graph_breaks(fn: Callable[..., object], *args: object, **kwargs: object) -> int:
    """How often torch.compile leaves the graph in `fn(*args, **kwargs)`, backward graphs traced as well.

    Counted as they happen, in each function being traced: torch._dynamo.explain counts graphs, and so misses
    a break with nothing after it.

    Raises:
        AssertionError: nothing was compiled, so that zero would mean nothing.
    """
    torch._dynamo.reset()
    counters.clear()
    torch.compile(fn, backend="aot_eager")(*args, **kwargs)
    breaks = sum(counters["graph_break"].values())
    graphs = counters["stats"]["unique_graphs"]
    assert graphs + breaks > 0, f"{getattr(fn, '__name__', fn)}: torch.compile found nothing to compile"
    return breaks
