"""The test of a semiring: draw elements, try every law on every triple, show the first failure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements
from semijax.semirings import Product, Semiring, as_semiring

FIXED_WEIGHTS = (1.0, -1.0, 1.5, -0.5, 0.0)


def check_semiring(
    semiring: Any,
    *,
    seed: int = 0,
    samples: int = 8,
    dtype: Any = jnp.float32,
    rtol: float | None = None,
    equations: Sequence[Any] = (),
) -> None:
    """Check that something is a commutative semiring, and raise if it is not.

    A sweep gives the statistic of all paths only if ⊗ distributes over ⊕, and the same whatever the
    order of the program only if both are associative and commutative. All laws are tried on all
    triples of a few dozen elements: lifted weights of both signs (1, −1 and 0 among them), 0̄, 1̄,
    and sums and products of those. It is also checked that the elements keep their structure,
    shapes and dtypes; that the operations act element by element; that the methods overridden for
    speed agree with the defaults of ``Semiring``; that an edge that was not selected does to finite
    elements what its weight of 0 does; and that what the semiring says of itself is true.

    Floating point numbers are compared with a tolerance, infinities must be equal, and NaN equals
    nothing. An element that is infinite wherever 0̄ is counts as 0̄, whatever its other numbers are
    (the entropy of paths of mass 0 means nothing).

    Args:
        semiring: a ``Semiring``, or a tuple, list or dict of semirings.
        seed: of the random weights.
        samples: the number of random weights.
        dtype: of the weights.
        rtol: the tolerance, relative to 1 plus the larger magnitude; by default 1000 times the
            machine epsilon of ``dtype``.
        equations: if the lift depends on the equation, some to pass to ``semiring.at``.

    Raises:
        AssertionError: naming the law that fails, the elements it fails for, and both sides.
        TypeError: if it is not a semiring at all, or not hashable.

    Example:
        The larger of two products is not a semiring on signed numbers, because a negative factor
        turns the largest into the smallest:

        >>> import dataclasses, jax.numpy as jnp
        >>> from semijax.semirings import SumProduct
        >>> from semijax.testing import check_semiring
        >>> check_semiring(SumProduct())
        >>> class PlainMax(SumProduct):
        ...     def zero(self, shape, dtype): return jnp.full(shape, -jnp.inf, dtype)
        ...     def add(self, a, b): return jnp.maximum(a, b)
        >>> check_semiring(PlainMax())
        Traceback (most recent call last):
        AssertionError: PlainMax() is not a commutative semiring:
        not true that ⊗ distributes over ⊕.
          a = lift(-1) = -1.0
          b = lift(1) = 1.0
          c = lift(-1) = -1.0
          a ⊗ (b ⊕ c) = -1.0
          (a ⊗ b) ⊕ (a ⊗ c) = 1.0
    """
    checker = _Checker(as_semiring(semiring), seed, samples, dtype, rtol, tuple(equations))
    checker.check_structure()
    checker.check_elementwise()
    checker.check_laws()
    checker.check_overrides()
    checker.check_claims()
    checker.check_selection()


@dataclasses.dataclass(frozen=True)
class _Law:
    name: str
    variables: str
    left: tuple[str, Callable[..., Elements]]
    right: tuple[str, Callable[..., Elements]]


class _Checker:
    def __init__(
        self,
        semiring: Semiring,
        seed: int,
        samples: int,
        dtype: Any,
        rtol: float | None,
        equations: tuple[Any, ...],
    ) -> None:
        self.semiring = semiring
        self.dtype = jnp.dtype(dtype)
        self.rtol = 1000 * float(jnp.finfo(dtype).eps) if rtol is None else rtol
        self.equations = equations
        self.random = np.random.default_rng(seed)
        sizes = self.random.uniform(0.25, 1.5, samples).round(3)
        signs = self.random.choice([-1, 1], samples)
        self.weights = jnp.asarray([*FIXED_WEIGHTS, *(sizes * signs)], dtype)

    def fail(self, what: str, *details: str) -> None:
        lines = [f"{self.semiring!r} is not a commutative semiring:", what, *details]
        raise AssertionError("\n".join(lines))

    # Before the laws: that they can be stated.

    def check_structure(self) -> None:
        """Check that all operations give elements of the same structure, shapes and dtypes."""
        s = self.semiring
        for shape in ((), (3,), (2, 5), (0,)):
            weights = jax.ShapeDtypeStruct(shape, self.dtype)
            zero, lifted = self.shapes(s.zero, shape), jax.eval_shape(s.lift, weights)
            if any(leaf.shape[: len(shape)] != shape for leaf in jax.tree.leaves(zero)):
                self.fail(f"zero({shape}, {self.dtype}) has another shape: {_show_structure(zero)}")
            self.expect_structure(zero, "one(shape, dtype)", self.shapes(s.one, shape))
            self.expect_structure(zero, "lift(weights)", lifted)
            for equation in self.equations:
                at = jax.eval_shape(s.at(equation).lift, weights)
                self.expect_structure(zero, f"at({equation!r}).lift(weights)", at)
            self.expect_structure(zero, "add(lift, zero)", jax.eval_shape(s.add, lifted, zero))
            self.expect_structure(zero, "mul(lift, zero)", jax.eval_shape(s.mul, lifted, zero))
            for leaf in jax.tree.leaves(jax.eval_shape(s.readout, lifted)):
                if leaf.shape[: len(shape)] != shape:
                    self.fail(f"readout of elements of shape {shape} has shape {leaf.shape}.")

    def shapes(self, make: Callable[..., Elements], shape: tuple[int, ...]) -> Elements:
        """Return the shapes and dtypes of ``zero`` or ``one``."""
        return jax.eval_shape(lambda: make(shape, self.dtype))

    def expect_structure(self, zero: Elements, name: str, elements: Elements) -> None:
        """Check that some elements are made like 0̄."""
        if _structure(elements) != _structure(zero):
            self.fail(
                "the elements of arrays of the same shape differ in structure.",
                f"  zero(shape, dtype): {_show_structure(zero)}",
                f"  {name}: {_show_structure(elements)}",
            )

    def check_elementwise(self) -> None:
        """Check that operations don't mix the elements of an array."""
        s = self.semiring
        operations: dict[str, Callable[[jax.Array, jax.Array], Elements]] = {
            "lift": lambda v, w: s.lift(v),
            "add": lambda v, w: s.add(s.lift(v), s.lift(w)),
            "mul": lambda v, w: s.mul(s.lift(v), s.lift(w)),
        }

        @jax.jit
        def evaluate(a: jax.Array, b: jax.Array) -> list[tuple[Elements, Elements]]:
            results = []
            for operation in operations.values():
                together = operation(a.reshape(2, 3), b.reshape(2, 3))
                alone = [operation(a[i], b[i]) for i in range(6)]
                stacked = el.map_leaves(lambda *leaves: jnp.stack(leaves), *alone)
                results.append((el.reshape(together, (2, 3), (6,)), stacked))
            return results

        results = evaluate(self.weights[-6:], jnp.roll(self.weights, 2)[-6:])
        for name, (together, alone) in zip(operations, results, strict=True):
            wrong = np.flatnonzero(~self.same(together, alone, nan_is_nan=True))
            if wrong.size:
                self.fail(
                    f"{name} does not act element by element.",
                    f"  in an array of shape (2, 3): {_show(together, wrong[0])}",
                    f"  alone: {_show(alone, wrong[0])}",
                )

    # The laws.

    def laws(self) -> list[_Law]:
        """Return the axioms of a commutative semiring."""
        add, mul = self.semiring.add, self.semiring.mul

        def zero(a: Elements) -> Elements:
            return self.semiring.zero(_size(a), self.dtype)

        def one(a: Elements) -> Elements:
            return self.semiring.one(_size(a), self.dtype)

        return [
            _Law(
                "⊕ is commutative",
                "ab",
                ("a ⊕ b", add),
                ("b ⊕ a", lambda a, b: add(b, a)),
            ),
            _Law(
                "⊕ is associative",
                "abc",
                ("(a ⊕ b) ⊕ c", lambda a, b, c: add(add(a, b), c)),
                ("a ⊕ (b ⊕ c)", lambda a, b, c: add(a, add(b, c))),
            ),
            _Law(
                "⊗ is commutative",
                "ab",
                ("a ⊗ b", mul),
                ("b ⊗ a", lambda a, b: mul(b, a)),
            ),
            _Law(
                "⊗ is associative",
                "abc",
                ("(a ⊗ b) ⊗ c", lambda a, b, c: mul(mul(a, b), c)),
                ("a ⊗ (b ⊗ c)", lambda a, b, c: mul(a, mul(b, c))),
            ),
            _Law(
                "⊗ distributes over ⊕",
                "abc",
                ("a ⊗ (b ⊕ c)", lambda a, b, c: mul(a, add(b, c))),
                ("(a ⊗ b) ⊕ (a ⊗ c)", lambda a, b, c: add(mul(a, b), mul(a, c))),
            ),
            _Law(
                "0̄ is the identity of ⊕",
                "a",
                ("0̄ ⊕ a", lambda a: add(zero(a), a)),
                ("a", lambda a: a),
            ),
            _Law(
                "1̄ is the identity of ⊗",
                "a",
                ("1̄ ⊗ a", lambda a: mul(one(a), a)),
                ("a", lambda a: a),
            ),
            _Law(
                "0̄ annihilates",
                "a",
                ("0̄ ⊗ a", lambda a: mul(zero(a), a)),
                ("0̄", zero),
            ),
        ]

    @functools.cached_property
    def pool(self) -> tuple[list[str], Elements]:
        """Elements with their names: lifted weights, their sums and products, 0̄ and 1̄."""
        s = self.semiring
        lifts = {"lift": s.lift}
        lifts |= {f"at({e!r}).lift": s.at(e).lift for e in self.equations}
        names = [f"{lift}({w:g})" for lift in lifts for w in np.asarray(self.weights, float)]
        pairs = []
        for count, symbol in ((6, "⊕"), (6, "⊗"), (4, "⊕")):
            i, j = self.random.integers(len(names), size=(2, count))
            names += [f"({names[p]} {symbol} {names[q]})" for p, q in zip(i, j, strict=True)]
            pairs.append((s.add if symbol == "⊕" else s.mul, jnp.asarray(i), jnp.asarray(j)))

        @jax.jit
        def build(weights: jax.Array) -> Elements:
            pool = el.concatenate([lift(weights) for lift in lifts.values()], 0)
            for operation, i, j in pairs:
                made = operation(el.take(pool, i), el.take(pool, j))
                pool = el.concatenate([pool, made], 0)
            return el.concatenate([pool, s.zero((1,), self.dtype), s.one((1,), self.dtype)], 0)

        return [*names, "0̄", "1̄"], build(self.weights)

    def check_laws(self) -> None:
        """Try every law on every pair or triple of the pool."""
        names, pool = self.pool
        laws = self.laws()
        places = {n: np.indices((len(names),) * n).reshape(n, -1) for n in (1, 2, 3)}

        @jax.jit
        def evaluate(pool: Elements, places: dict[int, jax.Array]) -> list[tuple]:
            variables = {n: [el.take(pool, row) for row in rows] for n, rows in places.items()}
            arguments = [variables[len(law.variables)] for law in laws]
            return [
                (law.left[1](*args), law.right[1](*args))
                for law, args in zip(laws, arguments, strict=True)
            ]

        broken = []  # (does it need 0̄ or 1̄ to show?, the law, the first place where it fails)
        for law, sides in zip(laws, evaluate(pool, places), strict=True):
            failures = np.flatnonzero(~self.same(*sides))
            if failures.size:
                choices = places[len(law.variables)][:, failures]
                special = (choices >= len(names) - 2).any(0)
                broken.append((bool(special.all()), law, choices[:, special.argmin()]))
        if not broken:
            return
        _, law, place = min(broken, key=lambda failure: failure[0])
        variables = [el.take(pool, jnp.array([i])) for i in place]
        details = [
            f"  {variable} = {names[i]} = {_show(pool, i)}"
            for variable, i in zip(law.variables, place, strict=True)
        ]
        for text, side in (law.left, law.right):
            if text not in law.variables:
                details.append(f"  {text} = {_show(side(*variables), 0)}")
        self.fail(f"not true that {law.name}.", *details)

    # The methods that have a default.

    def check_overrides(self) -> None:
        """Check that overridden methods give what the defaults of ``Semiring`` give."""
        for semiring in self.variants:
            calls = [
                (method, arrays, static)
                for method, arrays, static in self.calls()
                if getattr(type(semiring), method) is not getattr(Semiring, method)
            ]

            @jax.jit
            def evaluate(
                inputs: list[tuple], semiring: Semiring = semiring, calls: Any = calls
            ) -> Any:
                return [
                    (
                        getattr(semiring, method)(*arrays, *static),
                        getattr(Semiring, method)(semiring, *arrays, *static),
                    )
                    for (method, _, static), arrays in zip(calls, inputs, strict=True)
                ]

            results = evaluate([arrays for _, arrays, _ in calls])
            for (method, arrays, static), (own, default) in zip(calls, results, strict=True):
                self.compare(method, own, default, (*arrays, *static))

    @property
    def variants(self) -> tuple[Semiring, ...]:
        """The semiring, and what it is on the edges of equations."""
        return (self.semiring, *(self.semiring.at(e) for e in self.equations))

    def check_selection(self) -> None:
        """Check that ``scale_selected`` is ``scale`` on elements that are finite or 0̄."""
        names, pool = self.pool
        leaves = [np.asarray(x).reshape(len(names), -1) for x in jax.tree.leaves(pool)]
        finite = np.all([np.isfinite(x).all(1) for x in leaves if x.dtype != bool], axis=0)
        zero = self.semiring.zero((len(names),), self.dtype)
        kept = np.flatnonzero(finite | self.same(pool, zero))
        elements = el.take(pool, jnp.asarray(kept))
        selected = jnp.arange(len(kept)) % 3 > 0
        weights = jnp.where(selected, self.weights_of((len(kept),)), 0)
        for semiring in self.variants:
            got = semiring.scale_selected(weights, selected, elements)
            expected = semiring.scale(weights, elements)
            self.compare("scale_selected", got, expected, (weights, selected, elements), "scale")

    def check_claims(self) -> None:
        """Check its attributes, and what shares ask for."""
        for semiring in self.variants:
            lifted, zero = semiring.lift(jnp.zeros(1, self.dtype)), semiring.zero((1,), self.dtype)
            if semiring.zero_weight_is_no_path and not self.same(lifted, zero).all():
                self.fail(
                    "its zero_weight_is_no_path is True, but lift(0) is not 0̄.",
                    f"  lift(0) = {_show(lifted, 0)}",
                    f"  0̄ = {_show(zero, 0)}",
                )
        members = self.semiring.members if isinstance(self.semiring, Product) else (self.semiring,)
        for member in members:
            self.check_size(member)

    def check_size(self, semiring: Semiring) -> None:
        """Check that ``log_size`` is −∞ for 0̄ and fits ``size_of``; ``best`` is one of three."""
        if semiring.best not in ("size", "largest", "smallest"):
            self.fail(f"its best is {semiring.best!r}, not 'size', 'largest' or 'smallest'.")
        own = type(semiring).log_size is not Semiring.log_size
        if own != (semiring.size_of is not None):
            self.fail(
                "log_size and size_of go together: size_of says what log_size measures.",
                f"  log_size is {'its own' if own else 'the default'}",
                f"  size_of = {semiring.size_of!r}",
            )
        zero = semiring.zero((3,), self.dtype)
        if not np.asarray(semiring.is_zero(zero)).all():
            self.fail("its is_zero does not hold of 0̄.", f"  0̄ = {_show(zero, 0)}")
        try:
            size = np.asarray(semiring.log_size(zero))
        except TypeError:
            return  # it has no shares
        if size.shape != (3,) or (size != -np.inf).any():
            self.fail(
                "its log_size of 0̄ in an array of shape (3,) should be −∞, three times.",
                f"  log_size(0̄) = {size.tolist()}",
            )

    def calls(self) -> list[tuple[str, tuple, tuple]]:
        """List the methods with a default: name, arrays to call it with, static arguments."""
        calls: list[tuple[str, tuple, tuple]] = [
            ("scale", (self.weights_of((7,)), self.draw((7,))), ()),
            ("pass_through", (self.draw((7,)),), ()),
            ("segment_sum", (self.draw((3,)), jnp.asarray([1, 1, 1])), (3,)),
        ]
        segments = jnp.asarray([4, 0, -1, 0, 5, 1, 4, 4, 1, 0, 7, 0, 1])
        calls.append(("segment_sum", (self.draw((13,)), segments), (5,)))
        for shape, axes in (((5,), (0,)), ((2, 3, 5), (0, 2)), ((2, 3), ()), ((2, 0, 3), (1,))):
            calls.append(("sum", (self.draw(shape),), (axes,)))
        for batch, depth, rows, columns in ((2, 5, 3, 7), (1, 1, 2, 2), (2, 0, 3, 2)):
            weights = self.weights_of((batch, rows, depth))
            calls.append(("contract", (weights, self.draw((batch, depth, columns))), ()))
        return calls

    def compare(
        self, method: str, got: Elements, expected: Elements, args: tuple, other: str = ""
    ) -> None:
        """Compare the result of a method with the default's, or another method's."""
        than = f"its {other}" if other else "the default"
        other = other or f"Semiring.{method}"
        if _structure(got) != _structure(expected):
            self.fail(
                f"its {method} gives elements of another structure than {than}.",
                f"  {method}: {_show_structure(got)}",
                f"  {other}: {_show_structure(expected)}",
            )
        shape = _leading_shape(expected, self.semiring.zero((), self.dtype))
        got, expected = (el.reshape(e, shape, (el.size(shape),)) for e in (got, expected))
        wrong = np.flatnonzero(~self.same(got, expected))
        if wrong.size:
            place = tuple(int(i) for i in np.unravel_index(wrong[0], shape)) if shape else ()
            self.fail(
                f"its {method} does not agree with {than}, at index {place} of {shape}.",
                *(f"  argument: {_show(arg)}" for arg in args),
                f"  {method}: {_show(got, wrong[0])}",
                f"  {other}: {_show(expected, wrong[0])}",
            )

    def weights_of(self, shape: tuple[int, ...]) -> jax.Array:
        """Draw weights at random."""
        return self.weights[self.random.integers(len(self.weights), size=shape)]

    def draw(self, shape: tuple[int, ...]) -> Elements:
        """Draw elements at random from the pool."""
        names, pool = self.pool
        places = jnp.asarray(self.random.integers(len(names), size=el.size(shape)))
        return el.reshape(el.take(pool, places), (len(places),), shape)

    # When are two elements the same?

    def same(self, a: Elements, b: Elements, *, nan_is_nan: bool = False) -> np.ndarray:
        """Tell which elements of shape (n,) are equal: a boolean array of shape (n,)."""
        if not isinstance(self.semiring, Product):
            return self._same(self.semiring, a, b, nan_is_nan)
        parts = zip(
            self.semiring.members, self.semiring.split(a), self.semiring.split(b), strict=True
        )
        return np.all([self._same(s, x, y, nan_is_nan) for s, x, y in parts], axis=0)

    def _same(self, semiring: Semiring, a: Elements, b: Elements, nan_is_nan: bool) -> np.ndarray:
        zeros = [np.asarray(z) for z in jax.tree.leaves(semiring.zero((1,), self.dtype))]
        close, gone, valid = [], [], []
        for x, y, zero in zip(jax.tree.leaves(a), jax.tree.leaves(b), zeros, strict=True):
            x, y = (np.asarray(v) for v in (x, y))
            if not jnp.issubdtype(x.dtype, jnp.floating):
                close.append(x == y)
                continue
            x, y, zero = (v.astype(np.float64) for v in (x, y, zero))
            with np.errstate(invalid="ignore"):
                tolerance = self.rtol * (1 + np.maximum(np.abs(x), np.abs(y)))
                finite = np.isfinite(x) & np.isfinite(y)
                equal = (x == y) | (finite & (np.abs(x - y) <= tolerance))
            close.append(equal | (nan_is_nan & np.isnan(x) & np.isnan(y)))
            valid.append(~(np.isnan(x) | np.isnan(y)))
            if np.isinf(zero).any():
                gone.append(np.isfinite(zero) | ((x == zero) & (y == zero)))
        # Where all leaves have the same trailing axes, each entry stands for itself.
        entries = len({z.shape for z in zeros}) == 1

        def everywhere(parts: list[np.ndarray]) -> np.ndarray:
            flat = [part.reshape(len(part), -1) for part in parts]
            return np.all(flat if entries else [f.all(1, keepdims=True) for f in flat], axis=0)

        equal = everywhere(close)
        if gone:
            equal = np.logical_or(equal, everywhere(gone) & everywhere(valid))
        return np.asarray(equal.all(1))


def _size(elements: Elements) -> tuple[int, ...]:
    return jax.tree.leaves(elements)[0].shape[:1]


def _leading_shape(elements: Elements, one_element: Elements) -> tuple[int, ...]:
    leaf, trailing = jax.tree.leaves(elements)[0], jax.tree.leaves(one_element)[0].ndim
    return leaf.shape[: leaf.ndim - trailing]


def _structure(elements: Elements) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
    leaves, tree = jax.tree.flatten(elements)
    return tree, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _show_structure(elements: Elements) -> str:
    return str(jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", elements))


def _show(elements: Any, index: Any = ...) -> str:
    return str(jax.tree.map(lambda x: np.asarray(x)[index].tolist(), elements))
