"""Linear algebra and Fourier transforms: dense, over their last axes only."""

from __future__ import annotations

from semijax.jacobians import axis_labels
from semijax.jacobians.base import EVERY, declare
from semijax.trace.graph import Equation


def _matrices(equation: Equation) -> set[int] | None:
    """Return the last two axes of the operands, which mix; the first ones are a batch."""
    rank = len(axis_labels.shapes(equation)[0])
    same = all(len(shape) == rank for shape in axis_labels.shapes(equation))
    return {rank - 2, rank - 1} if same else None


def _transformed(equation: Equation) -> set[int]:
    rank = len(equation.outputs[0].shape)
    return set(range(rank - len(equation.params["fft_lengths"]), rank))


declare(
    *("cholesky", "lu", "qr", "householder_product", "eigh", "eig", "svd"),
    axes=axis_labels.mixing(_matrices),
)
declare("triangular_solve", axes=axis_labels.mixing(_matrices), linear_in=slice(1, 2))
declare("fft", axes=axis_labels.mixing(_transformed), linear_in=EVERY)
