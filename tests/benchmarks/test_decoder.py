"""The decoder of the benchmark, in small: one model in all layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.decoder import LAYOUTS, QUESTIONS, Decoder

SMALL = {"layers": 2, "width": 16, "heads": 4, "groups": 2, "hidden": 24, "words": 32, "tokens": 5}


def test_the_layouts_are_one_model():
    embeddings, weights = Decoder("scan", **SMALL).arguments()
    apart = [jax.tree.map(lambda leaf, n=n: leaf[n], weights["layers"]) for n in range(2)]
    gradients = {
        layout: jax.grad(Decoder(layout, **SMALL).function)(
            embeddings.astype(jnp.float32),
            jax.tree.map(lambda leaf: leaf.astype(jnp.float32), given),
        )
        for layout, given in zip(
            LAYOUTS,
            (weights | {"layers": apart}, weights, weights | {"layers": apart}),
            strict=True,
        )
    }
    assert np.ptp(gradients["scan"]) > 0
    for found in gradients.values():
        np.testing.assert_allclose(found, gradients["scan"], 1e-4, 1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_branches_of_all_layers_are_found(layout):
    model = Decoder(layout, **SMALL)
    found = jax.eval_shape(QUESTIONS["branch_flow"](model.function), *model.arguments())
    shapes = {leaf.shape for leaf in jax.tree.leaves(found)}
    layers = [""] if layout == "scan" else ["layer0/", "layer1/"]
    assert [*found] == [f"{layer}attention:input" for layer in layers]
    assert shapes == ({(2, 5)} if layout == "scan" else {(5,)})
