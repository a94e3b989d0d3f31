"""Long ⊕ sums, a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.sharding import in_shard_map, varying_like

BLOCK = 16
"""The number of terms that are combined at once.

XLA unrolls a reduction this short, vectorises it over the other axes and fuses it with what it
reads, so the terms themselves are never stored.
"""

DERIVATIVE_BLOCK = 4
"""The same for derivatives, which do store the terms of a block."""

BLOCK_BYTES = 2**24
"""The rough limit on the size of a block's terms, which may be stored."""

ACCELERATOR_BYTES = 2**30
"""The rough limit on the size of the terms that a GPU or TPU combines at once.

There XLA makes one kernel of a reduction and what it reads, and each further block is one more pass
over the results.
"""

LIFTED_BYTES = 2**18
"""The rough limit on the size of a block's lifted weights.

XLA's scheduler for the CPU lifts all matrices of a model at the beginning, unless it is in a loop.
"""


def fold(
    depth: int,
    term: Callable[[Any, int], Any],
    add: Callable[[Any, Any], Any],
    zero: Any,
    block: int = BLOCK,
    index_bytes: int | None = None,
) -> Any:
    """Compute ``term(0, n₀) ⊕ term(n₀, n₁) ⊕ …``: ``depth`` indices, a block of them at a time.

    Args:
        depth: the number of indices.
        term: from the first index (perhaps traced) and the number of indices to their ⊕.
        add: ⊕ of two terms.
        zero: the identity of ⊕; the result where there are no indices.
        block: how many indices a term has: all of them if there are no more than two blocks.
        index_bytes: the size of what is combined for one index. If given, a term has more indices
            where this does not run on a CPU: as many as ``ACCELERATOR_BYTES`` allows.
    """
    larger = ACCELERATOR_BYTES // max(1, index_bytes or ACCELERATOR_BYTES)
    if larger > block and depth > 2 * block:

        def in_blocks_of(block: int) -> Callable[[], Any]:
            return lambda: fold(depth, term, add, zero, block)

        return lax.platform_dependent(cpu=in_blocks_of(block), default=in_blocks_of(larger))
    if depth == 0:
        return zero
    if depth <= 2 * block:
        return term(0, depth)
    blocks, rest = divmod(depth, block)
    total = term(0, rest) if rest else zero

    def step(i: Any, total: Any) -> Any:
        return varying_like(total, add(total, term(rest + i.astype(jnp.uint32) * block, block)))

    if in_shard_map():  # a loop's carry varies over the same axes throughout
        total = varying_like((total, term(0, block)), total)
    # A derivative computes the terms again instead of keeping them.
    return lax.fori_loop(0, blocks, jax.checkpoint(step, prevent_cse=False), total)


def fold_sum(
    depth: int,
    term: Callable[[Any, int], Any],
    block: int = BLOCK,
    index_bytes: int | None = None,
) -> Any:
    """Apply ``fold`` with the ordinary sum of arrays, or of pytrees of them."""
    shapes = jax.eval_shape(lambda: term(0, min(depth, block)))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return fold(depth, term, lambda a, b: jax.tree.map(jnp.add, a, b), zero, block, index_bytes)
