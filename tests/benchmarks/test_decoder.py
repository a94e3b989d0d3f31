"""The decoder of the benchmark, in small: one model in both layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.decoder import LAYOUTS, QUESTIONS, Decoder

SMALL = {"layers": 2, "width": 16, "heads": 4, "groups": 2, "hidden": 24, "words": 32, "tokens": 5}


def test_both_layouts_are_one_model():
    embeddings, weights = Decoder("scan", **SMALL).arguments()
    apart = [jax.tree.map(lambda leaf, n=n: leaf[n], weights["layers"]) for n in range(2)]
    of_layers = {"scan": weights["layers"], "unrolled": apart}

    def gradient(layout):
        own = weights | {"layers": of_layers[layout]}
        args = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (embeddings, own))
        return jax.grad(Decoder(layout, **SMALL).function)(*args)

    assert np.ptp(gradient("scan")) > 0
    np.testing.assert_allclose(gradient("unrolled"), gradient("scan"), 1e-4, 1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_branches_of_all_layers_are_found(layout):
    model = Decoder(layout, **SMALL)
    found = jax.eval_shape(QUESTIONS["branch_flow"](model.function), *model.arguments())
    shapes = {leaf.shape for leaf in jax.tree.leaves(found)}
    layers = [""] if layout == "scan" else ["layer0/", "layer1/"]
    assert [*found] == [f"{layer}attention:input" for layer in layers]
    assert shapes == ({(2, 5)} if layout == "scan" else {(5,)})
