"""The weightings of edges: the second thing a user chooses, beside the semiring.

All weightings here share one definition: an edge's weight is its local derivative, averaged along
the straight line from a reference to the point. If the reference is the point itself, the weight is
the derivative. If it is the equation's inputs in a second run, paths divide the difference between
the two outputs among themselves; if it is 0, they divide the output itself. Nothing else changes,
whatever the semiring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from semijax import checks
from semijax.jacobians.base import EquationJacobian
from semijax.jacobians.line import Line, difference, has_derivative
from semijax.jacobians.lookup import averaged_jacobian
from semijax.trace.graph import Equation

POINTS = 32
"""The number of points of the quadrature used where an average has no closed form."""


class Weighting:
    """The base class of all weightings: what edges weigh, and what paths carry at the start.

    A weighting of your own defines ``jacobian``, and ``at_start`` if paths are to carry something
    that depends on where they start. Loops and branches need nothing: their edges are those of the
    equations inside.

    Attributes:
        reference: the arguments of a second run of the function, for a weighting that compares two;
            otherwise None.

    Example:
        The epsilon rule of layer-wise relevance propagation (Bach et al. 2015) for sums, the secant
        from 0 for all else:

        >>> import jax.numpy as jnp, semijax as sj
        >>> class Epsilon(sj.Relevance):
        ...     def jacobian(self, equation, values):
        ...         found = super().jacobian(equation, values)
        ...         if equation.primitive.name != "reduce_sum":
        ...             return found
        ...         (out,) = equation.bind(*values)
        ...         damped = jnp.broadcast_to(out / (out + 0.1 * jnp.sign(out)), values[0].shape)
        ...         axes = tuple(equation.params["axes"])
        ...         shapes = values[0].shape, out.shape
        ...         reduction = sj.jacobians.Reduction(damped, *shapes, axes)
        ...         return sj.jacobians.Table({(0, 0): reduction})
        >>> g = sj.semiring_grad(jnp.sum, sj.SumProduct(), weighting=Epsilon())(jnp.ones(9))
        >>> print(g.sum().round(2))
        8.9
    """

    reference: tuple[Any, ...] | None = None

    def jacobian(self, equation: Equation, *runs: Sequence[Any]) -> EquationJacobian:
        """Return the local Jacobian of an equation that is neither a loop nor a branch.

        Args:
            equation: the equation.
            *runs: the primal values of its inputs at the point, and in the reference if there is
                one. An input that cannot differ is the same object in both.
        """
        raise NotImplementedError(f"{type(self).__name__} must define jacobian(equation, *runs)")

    def at_start(self, *runs: Any) -> Any:
        """Return what a path carries where it starts: an array like the one there, or None for 1.

        Args:
            *runs: the array's value at the point, and in the reference if there is one.
        """
        del runs
        return None


class Averaged(Weighting):
    """A weighting whose weights are derivatives averaged along a line."""

    def line(self, equation: Equation, *runs: Sequence[Any]) -> Line:
        """Return the line that an equation's inputs move on; the arguments are ``jacobian``'s."""
        raise NotImplementedError

    def jacobian(self, equation: Equation, *runs: Sequence[Any]) -> EquationJacobian:
        return averaged_jacobian(equation, self.line(equation, *runs))


def line_of(weighting: Weighting, equation: Equation, *runs: Sequence[Any]) -> Line | None:
    """Return the line that derivatives are averaged along; None if the weights are others."""
    if isinstance(weighting, Averaged) and type(weighting).jacobian is Averaged.jacobian:
        return weighting.line(equation, *runs)
    return None


class Derivative(Averaged):
    """The local derivative at the point, as in the gradient. The default.

    Source: Du et al. 2023, Eq. 1.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.square(x)
        >>> for weighting in (sj.Derivative(), sj.Contrast(1.0)):
        ...     print(sj.semiring_grad(f, sj.SumProduct(), weighting=weighting)(3.0))
        6.0
        8.0
    """

    def line(self, equation: Equation, *runs: Sequence[Any]) -> Line:
        del equation
        return Line(runs[0], {}, POINTS)

    def __repr__(self) -> str:
        return "Derivative()"


class Contrast(Averaged):
    """The flow of the difference between two runs: the derivative averaged between them.

    Each equation's derivative is averaged separately, along the straight line from the equation's
    inputs in a second run, the reference, to its inputs at the point. A path carries the difference
    between the two runs at its start. The sum over all paths is therefore exactly the difference
    between the two outputs, and every path contributes a part of it. An array that
    ``stop_gradient`` cuts has its value at the point in both runs; so does an integer or a mask
    that differs, for the edges of its equation. If this leaves a remainder, ``residuals`` lists it.

    The weight of an elementwise function of one variable is the slope of its secant, that of a
    product or a contraction the other operand halfway, and that of a quotient has a closed form.
    Maxima, clamps, selections and sorts divide the line where the order changes. Everything else is
    integrated by Gauss-Legendre quadrature.

    Args:
        *reference: all arguments of the second run, with the structure of the function's own. An
            argument that is the same object in both runs, such as a model's parameters, does not
            differ. Integers such as tokens may differ if paths start behind them. Keyword arguments
            are the same in both runs.
        points: how many the quadrature has; 32 are exact to rounding, except for the steepest
            functions.

    Raises:
        ValueError: when it is used, if the arguments are not like the function's.
        FloatingPointError: if a weight or a difference on the way is not finite; the message names
            the equation. Inside ``jit`` the numbers are NaN instead.

    Source: for a network of affine maps and elementwise functions it becomes the rescale rule of
    DeepLIFT (Shrikumar et al. 2017); Aumann and Shapley 1974 for the division of one equation.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.tanh(x).sum() ** 2
        >>> x, r = jnp.array([1.0, 3.0]), jnp.array([0.5, -1.0])
        >>> parts = sj.semiring_grad(f, sj.SumProduct(), weighting=sj.Contrast(r))(x)
        >>> print(parts.sum().round(3), (f(x) - f(r)).round(3))
        2.996 2.996
    """

    def __init__(self, *reference: Any, points: int = POINTS) -> None:
        self.reference: tuple[Any, ...] = reference
        self.points: int = checks.check_positive("points", points)

    def line(self, equation: Equation, *runs: Sequence[Any]) -> Line:
        del equation
        values, reference = runs
        pairs = enumerate(zip(values, reference, strict=True))
        return Line(values, {n: r for n, (x, r) in pairs if x is not r}, self.points)

    def at_start(self, *runs: Any) -> Any:
        value, reference = runs
        return difference(value, reference)

    def __repr__(self) -> str:
        return "Contrast(…)"


class Relevance(Averaged):
    """The flow of the output itself: each equation's derivative, averaged from 0 to the point.

    For each equation, the line leads from 0 to the inputs that paths come through, including all
    that a loop carries; the other inputs, such as weights and biases, keep their values. A path
    carries the value at its start. An activation with f(0) = 0 gets f(x)/x, and each of two factors
    that paths come through gets half of the product; these are rules of the layer-wise relevance
    propagation family. The sum over all paths is the output minus the equations' values at 0, above
    all biases; ``residuals`` lists these.

    A weight is infinite where the function is infinite at 0, as 1/x is. It is therefore usual to
    ``freeze`` the scales of norms and the patterns of attention.

    Args:
        points: as for ``Contrast``.

    Raises:
        FloatingPointError: as ``Contrast``.

    Source: Bach et al. 2015 (LRP-0); Achtibat et al. 2024 (AttnLRP) and Jafari et al. 2025 (RelP)
    for products.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> w = jnp.array([[1.0, -2.0], [3.0, 1.0]])
        >>> net = lambda x: jax.nn.relu(x @ w).sum()
        >>> parts = sj.semiring_grad(net, sj.SumProduct(), weighting=sj.Relevance())(jnp.ones(2))
        >>> print(parts, net(jnp.ones(2)))
        [1. 3.] 4.0
    """

    def __init__(self, *, points: int = POINTS) -> None:
        self.points: int = checks.check_positive("points", points)

    def line(self, equation: Equation, *runs: Sequence[Any]) -> Line:
        (values,) = runs
        through = (i for i in equation.wrt if has_derivative(values[i]))
        return Line(values, {i: jnp.zeros_like(values[i]) for i in through}, self.points)

    def at_start(self, *runs: Any) -> Any:
        (value,) = runs
        return value

    def __repr__(self) -> str:
        return "Relevance()"


DERIVATIVE = Derivative()


def check_weighting(weighting: Any) -> Weighting:
    """Return the weighting; raise if it is not one."""
    if isinstance(weighting, type) and issubclass(weighting, Weighting):
        raise TypeError(f"weighting must be an instance, {weighting.__name__}(), not the class.")
    if not isinstance(weighting, Weighting):
        raise TypeError(
            "weighting must be a semijax.Weighting, such as Derivative(), Contrast(*reference) or "
            f"Relevance(); got {weighting!r} of type {type(weighting).__name__}."
        )
    return weighting
