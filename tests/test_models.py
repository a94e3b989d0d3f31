"""Real models, unmodified and randomly initialised: other people's code through the sweep."""

import functools

import jax
import numpy as np
import pytest

import semijax as sj
from semijax.trace import compat, graph

from .compilation import quick_jit

SEMIRINGS = {
    "sum": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "strongest": sj.AbsMaxProduct(),
    "max": sj.MaxProduct(),
    "entropy": sj.Entropy(),
    "count": sj.PathCount(),
}
TOKENS = np.arange(7)[None]
SMALL = {"num_attention_heads": 2, "hidden_size": 16, "num_hidden_layers": 1}


def bert():
    from transformers import BertConfig, FlaxBertForMaskedLM

    config = BertConfig(vocab_size=53, intermediate_size=32, max_position_embeddings=16, **SMALL)
    model = FlaxBertForMaskedLM(config)

    def difference(params):
        logits = jax.nn.log_softmax(model(TOKENS, params=params).logits[0, 3])
        return logits[5] - logits[6]

    return difference, model.params


def gpt2():
    from transformers import FlaxGPT2LMHeadModel, GPT2Config

    config = GPT2Config(vocab_size=53, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    model = FlaxGPT2LMHeadModel(config)
    return lambda params: model(TOKENS, params=params).logits[0, -1, 5], model.params


def llama():
    from transformers import FlaxLlamaForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=53,
        intermediate_size=32,
        max_position_embeddings=16,
        num_key_value_heads=1,
        **SMALL,
    )
    model = FlaxLlamaForCausalLM(config)
    return lambda params: model(TOKENS, params=params).logits[0, -1, 5], model.params


def vit():
    from transformers import FlaxViTModel, ViTConfig

    model = FlaxViTModel(ViTConfig(intermediate_size=32, image_size=12, patch_size=4, **SMALL))
    image = jax.random.normal(jax.random.key(0), (1, 3, 12, 12))

    def unit(inputs):
        return model(inputs["image"], params=inputs["params"]).last_hidden_state[0, 0, 3]

    return unit, {"image": image, "params": model.params}


def resnet():
    from transformers import FlaxResNetForImageClassification, ResNetConfig

    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_channels=3
    )
    model = FlaxResNetForImageClassification(config, input_shape=(1, 24, 24, 3))
    statistics = model.params["batch_stats"]
    image = jax.random.normal(jax.random.key(0), (1, 3, 24, 24))

    def logit(inputs):
        params = {"params": inputs["params"], "batch_stats": statistics}
        return model(inputs["image"], params=params).logits[0, 1]

    return logit, {"image": image, "params": model.params["params"]}


def nnx_transformer():
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, width, rngs):
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
            self.up = nnx.Linear(width, 2 * width, rngs=rngs)
            self.down = nnx.Linear(2 * width, width, rngs=rngs)

        def __call__(self, x):
            x = x + self.attention(self.norm(x))
            return x + self.down(nnx.gelu(self.up(self.norm(x))))

    class Transformer(nnx.Module):
        def __init__(self, rngs):
            self.block = Block(16, rngs)
            self.head = nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.block(x))

    definition, state = nnx.split(Transformer(nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(1), (5, 16))
    return lambda state: nnx.merge(definition, state)(x)[0, 2], state


def equinox_mlp():
    import equinox as eqx

    mlp = eqx.nn.MLP(7, "scalar", 11, 2, key=jax.random.key(0))
    arrays, static = eqx.partition(mlp, eqx.is_array)
    x = jax.random.normal(jax.random.key(1), (7,))
    return lambda arrays: eqx.combine(arrays, static)(x), arrays


MODELS = {f.__name__: f for f in (bert, gpt2, llama, vit, resnet, nnx_transformer, equinox_mlp)}


@functools.cache
def analysed(name):
    function, inputs = MODELS[name]()
    gradient = quick_jit(jax.grad(function))(inputs)
    return function, inputs, gradient, quick_jit(sj.semiring_grad(function, SEMIRINGS))(inputs)


@pytest.mark.parametrize("name", MODELS)
def test_statistics_of_all_parameters(name):
    _, inputs, gradient, found = analysed(name)
    assert jax.tree.structure(found["sum"]) == jax.tree.structure(inputs)
    leaves = {key: jax.tree.leaves(value) for key, value in found.items()}
    for i, expected in enumerate(jax.tree.leaves(gradient)):
        of = {key: np.asarray(value[i]) for key, value in leaves.items()}
        # Where the paths cancel, what is left is rounding, of the size of their mass × epsilon.
        slack = 1e-5 * of["mass"] + 1e-9
        assert (np.abs(of["sum"] - expected) <= 1e-4 * np.abs(expected) + slack).all()
        assert (of["strongest"] <= of["mass"] + slack).all()
        assert (np.abs(of["sum"]) <= of["mass"] + slack).all()
        assert (of["max"] <= of["strongest"] + slack).all()
        assert (of["entropy"] >= 0).all()
        reached = of["count"] > -np.inf
        assert (of["entropy"][reached] <= of["count"][reached] + 1e-3).all()
        assert (of["entropy"][~reached] == 0).all()
        assert (of["mass"][~reached] == 0).all()
        assert not any(np.isnan(value).any() for value in of.values())
    assert any((np.asarray(count) > 0).any() for count in leaves["count"])


def with_own_derivatives(found):
    """The names of the functions in a graph that have a derivative of their own."""
    for equation in found.equations:
        if equation.primitive in compat.CUSTOM_DERIVATIVES:
            yield equation.name
        if equation.region:
            for body in graph.build_bodies(equation):
                yield from with_own_derivatives(body)


@pytest.mark.parametrize("name", MODELS)
def test_no_dense_fallback_but_for_custom_derivatives(name):
    function, inputs, _, _ = analysed(name)
    table = sj.explain(function)(inputs)
    known = set(with_own_derivatives(graph.trace(function, inputs)[0]))
    assert {row.primitive for row in table if row.dense} <= known
    assert len(table) > 5
