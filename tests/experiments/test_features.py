"""Fig. 6b: the entropies are those of the paths one can list, and the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from semijax.experiments import features

SLOPE = 0.01


def paths_from_logits(logits, label, max_in_graph):
    """The weights of all paths from each of an example's logits to its loss."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    lists = [[p_k] + [-1.0] * int(k == label) for k, p_k in enumerate(p)]
    if max_in_graph:  # its own, and one through each exponential
        lists[logits.argmax()] += [1.0, *-p]
    return lists


def entropies_by_hand(model, x, label, max_in_graph):
    """Of the paths from each feature of one example, listed one by one."""
    up, down = (np.asarray(layer.kernel[...], np.float64) for layer in (model.up, model.down))
    slopes = np.where(x @ up + np.asarray(model.up.bias[...]) > 0, 1, SLOPE)
    after = paths_from_logits(np.asarray(model(x), np.float64), label, max_in_graph)
    entropies = []
    for row in up:
        into = (row * slopes)[:, None] * down
        shares = np.concatenate([np.outer(into[:, k], after[k]).ravel() for k in range(2)])
        shares = np.abs(shares) / np.abs(shares).sum()
        entropies.append(-(shares * np.log(shares)).sum())
    return entropies


@pytest.mark.parametrize("max_in_graph", [True, False])
def test_entropies_are_of_all_paths(max_in_graph):
    found = features.feature_entropies(
        5, [2, 3], trained=False, max_in_graph=max_in_graph, points=40
    )
    model = features.MLP(5, rngs=nnx.Rngs(3))
    points, labels = features.sample(40, seed=3)
    wanted = np.mean(
        [
            entropies_by_hand(model, x, label, max_in_graph)
            for x, label in zip(points[-32:], labels[-32:], strict=True)
        ],
        axis=0,
    )
    second = found.relevant[1], found.irrelevant[1]
    np.testing.assert_allclose(second, (wanted[0], wanted[1:].mean()), rtol=1e-5)


@pytest.mark.parametrize("max_in_graph", [True, False])
def test_cross_entropy(max_in_graph):
    logits = 3 * jax.random.normal(jax.random.key(0), (7, 3))
    labels = jnp.array([0, 1, 2, 0, 1, 2, 0])

    def ours(logits):
        return features.cross_entropy(logits, labels, max_in_graph=max_in_graph)

    def optax_loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    found, wanted = (jax.value_and_grad(loss)(logits) for loss in (ours, optax_loss))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-6)


def test_initialisation():
    model = features.MLP(2003, rngs=nnx.Rngs(0))
    assert model.up.kernel[...].std() == pytest.approx((2 / 2007) ** 0.5, rel=0.05)
    assert model.down.kernel[...].std() == pytest.approx((2 / 2005) ** 0.5, rel=0.05)
    assert model.up.bias[...].std() == pytest.approx(2003**-0.5, rel=0.05)


def test_published_values():
    """Reached by training, and only in the graph of the released code."""
    published = features.PUBLISHED[64]
    trained = np.mean(features.feature_entropies(64, range(2)), axis=1)
    np.testing.assert_allclose(trained, published, rtol=0.1)
    others = np.mean(features.feature_entropies(64, range(2), max_in_graph=False), axis=1)
    assert (others < 0.9 * np.array(published)).all()
    untrained = np.mean(features.feature_entropies(64, range(2), trained=False), axis=1)
    assert (untrained < trained).all()


def test_a_grid_goes_on_and_its_claims_are_over_seeds(tmp_path):
    options = {"widths": (32, 64), "points": 64}
    first = features.grid(range(2), tmp_path, **options)
    table = features.grid(range(3), tmp_path, **options)
    assert len(first) == 8 and len(table) == 12  # widths, seeds, trained or not
    old = table.merge(first, on=list(first.columns))
    assert len(old) == 8  # as they were
    own = table[(table["hidden"] == 64) & (table["network"] == "trained")]
    alone = features.feature_entropies(64, [2], points=64)
    np.testing.assert_allclose(own["relevant"].iloc[2], alone.relevant[0], rtol=1e-4)
    difference, slope = features.claims(table)
    wide = table[table["network"] == "trained"]
    expected = (wide["relevant"] - wide["irrelevant"]).mean()
    assert difference.ours.mean == pytest.approx(expected) and difference.ours.n == 3
    assert slope.ours.mean == pytest.approx(
        wide.groupby("hidden")["relevant"].mean().diff().iloc[1]
    )


def test_errors():
    with pytest.raises(ValueError, match="hidden must be"):
        features.feature_entropies(0)
    with pytest.raises(ValueError, match="one full batch"):
        features.feature_entropies(3, points=31)
    with pytest.raises(ValueError, match="number of seeds must be"):
        features.feature_entropies(3, [])
