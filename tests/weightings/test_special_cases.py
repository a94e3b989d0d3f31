"""What the literature calls by other names, each computed the way its authors do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

RNG = np.random.default_rng(11)
W1, W2 = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 3))
B1, B2 = RNG.normal(size=6), RNG.normal(size=3)
X, R = RNG.normal(size=(2, 5))


def parts(f, weighting, x=X):
    with jax.enable_x64(True):
        return sj.semiring_grad(f, sj.SumProduct(), weighting=weighting)(jnp.asarray(x))


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh, jax.nn.sigmoid])
def test_deeplift_rescale_rule(activation):
    """Shrikumar et al. 2017, §3.5.1: the multiplier of an activation is Δout/Δin."""

    def network(x):
        return (activation(activation(x @ W1 + B1) @ W2 + B2)).sum()

    def by_hand(x, r):
        z1, q1 = x @ W1 + B1, r @ W1 + B1
        a1, p1 = activation(z1), activation(q1)
        z2, q2 = a1 @ W2 + B2, p1 @ W2 + B2
        m2 = (activation(z2) - activation(q2)) / (z2 - q2)
        m1 = (W2 @ m2) * (a1 - p1) / (z1 - q1)
        return (x - r) * (W1 @ m1)

    with jax.enable_x64(True):
        wanted = by_hand(X, R)
        found = parts(network, sj.Contrast(jnp.asarray(R)))
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
        whole = network(jnp.asarray(X)) - network(jnp.asarray(R))
        np.testing.assert_allclose(wanted.sum(), whole, rtol=1e-10)  # "summation to delta"


def test_integrated_gradients_of_one_equation():
    """Sundararajan et al. 2017, Eq. 1, for a function that is one node of the graph."""

    @sj.atomic
    def function(x):
        return jnp.tanh(x @ W1 * x.sum()) @ W2[:, 0] + jnp.exp(x[0] * x[1])

    with jax.enable_x64(True):
        ts = (np.arange(4000) + 0.5) / 4000
        gradients = jax.vmap(jax.grad(function))(R + ts[:, None] * (X - R))
        found = parts(function, sj.Contrast(jnp.asarray(R)))
        np.testing.assert_allclose(found, (X - R) * gradients.mean(0), rtol=1e-5)


def bias_free(x):
    return jax.nn.relu(jax.nn.relu(x @ W1) @ W2) @ jnp.array([1.0, -2.0, 0.5])


def test_lrp_0_is_gradient_times_input_in_a_network_of_relus():
    """Ancona et al. 2018, Prop. 1, and conservation: what comes in is what goes out."""
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        found = parts(bias_free, sj.Relevance())
        np.testing.assert_allclose(found, x * jax.grad(bias_free)(x), rtol=1e-10)
        np.testing.assert_allclose(found.sum(), bias_free(x), rtol=1e-10)
        left = sj.residuals(bias_free, (x,), sj.Relevance())
        assert abs(left.remainder) < 1e-12
        layers = sj.site_flow(
            bias_free,
            sj.SumProduct(),
            ["dot_general#1", "relu#1", "dot_general#2"],
            weighting=sj.Relevance(),
            aggregate=0,
        )(x)
        for name, each in layers.items():
            np.testing.assert_allclose(each, bias_free(x), rtol=1e-10, err_msg=name)


def test_lrp_keeps_biases_back():
    """LRP-0 with biases: Σ R_i = f(x) less what the biases carry (Bach et al. 2015, Eq. 52)."""

    def f(x):
        return jax.nn.relu(x @ W1 + B1).sum()

    with jax.enable_x64(True):
        x = jnp.asarray(X)
        active = x @ W1 + B1 > 0
        left = sj.residuals(f, (x,), sj.Relevance())
        assert left.remainder == pytest.approx(float((B1 * active).sum()))
        assert left[0].primitive == "add" and all(abs(row.effect) < 1e-12 for row in left[1:])


def test_relp_rules():
    """Jafari et al. 2025: identity for activations, half for products, norms frozen."""

    def norm(x):
        scale = sj.tap(jax.lax.rsqrt((x**2).mean() + 1e-6), "scale")
        return x * scale

    def gated(x):
        h = norm(x)
        return (jax.nn.silu(h @ W1) * (h @ W1[:, ::-1])) @ W2[:, 0]

    def by_rules(x):
        """Gradient × input of a function whose gradient the rules change, by stop_gradient."""
        stop = jax.lax.stop_gradient
        h = x * stop(jax.lax.rsqrt((x**2).mean() + 1e-6))
        a, b = h @ W1, h @ W1[:, ::-1]
        # silu(a) is itself a product, a · sigmoid(a): half to each, and to the sigmoid its secant.
        secant = stop((jax.nn.sigmoid(a) - 0.5) / a)
        s = stop(jax.nn.sigmoid(a)) + secant * (a - stop(a))
        act = (a * stop(s) + stop(a) * s) / 2
        return ((act * stop(b) + stop(act) * b) / 2) @ W2[:, 0]

    with jax.enable_x64(True):
        x = jnp.asarray(X)
        found = parts(sj.freeze(gated, "scale"), sj.Relevance())
        np.testing.assert_allclose(found, x * jax.grad(by_rules)(x), rtol=1e-9)


def test_a_weighting_of_the_users():
    """The z⁺ rule (Montavon et al. 2017): of a matrix product, its positive parts share."""

    class Positive(sj.Relevance):
        def jacobian(self, equation, *runs):
            (values,) = runs
            if equation.primitive.name != "dot_general":
                return super().jacobian(equation, *runs)
            x, w = values
            kept = jnp.maximum(w, 0)
            z = x @ kept
            return super().jacobian(equation, [x, kept * jnp.where(z > 0, x @ w / z, 0)])

    x = np.abs(X)

    def by_hand(x):
        a1 = np.maximum(x @ W1, 0)
        a2 = np.maximum(a1 @ W2, 0)
        z2, z1 = np.maximum(W2, 0), np.maximum(W1, 0)
        r1 = a1 * (z2 @ (a2 / np.maximum(a1 @ z2, 1e-30)))
        return x * (z1 @ (r1 / np.maximum(x @ z1, 1e-30)))

    def network(x):
        return jax.nn.relu(jax.nn.relu(x @ W1) @ W2).sum()

    with jax.enable_x64(True):
        found = sj.semiring_grad(network, sj.SumProduct(), weighting=Positive())(jnp.asarray(x))
        np.testing.assert_allclose(found, by_hand(x), rtol=1e-9)
        assert found.sum() == pytest.approx(float(network(x)))
        strongest = sj.top_paths(network, 2, weighting=Positive())(jnp.asarray(x))
        assert all(path.contribution >= 0 and path.verify() < 1e-9 for path in strongest)
