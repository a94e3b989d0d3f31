"""Long ⊕ sums, a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

BLOCK = 16
"""How many terms are combined at once. XLA unrolls a reduction this short, vectorises it over the
other axes and fuses it with what it reads, so the terms themselves are never stored."""

BLOCK_BYTES = 2**24
"""The terms of a block that may be stored are no larger."""

LIFTED_BYTES = 2**18
"""The lifted weights of a block are no larger. XLA's scheduler for the CPU lifts all matrices of a
model at the beginning, unless it is in a loop."""


def fold(
    depth: int,
    term: Callable[[Any, int], Any],
    add: Callable[[Any, Any], Any],
    zero: Any,
    block: int = BLOCK,
) -> Any:
    """``zero ⊕ term(0, n₀) ⊕ term(n₀, n₁) ⊕ …``: ``depth`` indices, a block of them at a time.

    Args:
        depth: how many there are.
        term: from the first index (perhaps traced) and the number of indices to their ⊕.
        add: ⊕ of two terms.
        zero: what to begin with.
        block: the largest number of indices in a term.
    """
    if depth == 0:
        return zero
    if depth <= 2 * block:
        return term(0, depth)
    blocks, rest = divmod(depth, block)
    total = term(0, rest) if rest else zero

    def step(i: Any, total: Any) -> Any:
        return add(total, term(rest + i.astype(jnp.uint32) * block, block))

    # A derivative computes the terms again instead of keeping them.
    return lax.fori_loop(0, blocks, jax.checkpoint(step, prevent_cse=False), total)
