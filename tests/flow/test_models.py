"""Flow through other people's models, unmodified: the same lines for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

from ..compilation import quick_jit

TOKENS = np.arange(7)[None]
SMALL = {"num_attention_heads": 2, "hidden_size": 16, "num_hidden_layers": 2}


def bert():
    from transformers import BertConfig, FlaxBertForMaskedLM

    config = BertConfig(vocab_size=53, intermediate_size=32, max_position_embeddings=16, **SMALL)
    model = FlaxBertForMaskedLM(config)
    return lambda tokens: model(tokens).logits[0, 3, 5], TOKENS


def gpt2():
    from transformers import FlaxGPT2LMHeadModel, GPT2Config

    config = GPT2Config(vocab_size=53, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    model = FlaxGPT2LMHeadModel(config)
    return lambda tokens: model(tokens).logits[0, -1, 5], TOKENS


def vit():
    from transformers import FlaxViTModel, ViTConfig

    model = FlaxViTModel(ViTConfig(intermediate_size=32, image_size=12, patch_size=4, **SMALL))
    image = jax.random.normal(jax.random.key(0), (1, 3, 12, 12))
    return lambda image: model(image).last_hidden_state[0, 0, 3], image


def nnx_transformer():
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(16, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
            self.mlp = nnx.Sequential(
                nnx.Linear(16, 32, rngs=rngs), nnx.gelu, nnx.Linear(32, 16, rngs=rngs)
            )

        def __call__(self, x):
            x = x + self.attention(self.norm(x))
            return x + self.mlp(self.norm(x))

    class Transformer(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(53, 16, rngs=rngs)
            self.layers = nnx.List([Block(rngs), Block(rngs)])

        def __call__(self, tokens):
            x = self.embed(tokens)
            for layer in self.layers:
                x = layer(x)
            return self.embed.attend(x)

    definition, state = nnx.split(Transformer(nnx.Rngs(0)))

    def logit(tokens):
        model = nnx.merge(definition, state)
        with sj.scopes(model):
            return model(tokens)[0, -1, 5]

    return logit, TOKENS


def equinox_transformer():
    import equinox as eqx

    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        attention: eqx.nn.MultiheadAttention
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.norm = eqx.nn.LayerNorm(16)
            self.attention = eqx.nn.MultiheadAttention(2, 16, key=keys[0])
            self.up = eqx.nn.Linear(16, 32, key=keys[1])
            self.down = eqx.nn.Linear(32, 16, key=keys[2])

        def __call__(self, x):
            y = jax.vmap(self.norm)(x)
            x = x + self.attention(y, y, y)
            return x + jax.vmap(lambda row: self.down(jax.nn.gelu(self.up(row))))(x)

    class Transformer(eqx.Module):
        embed: eqx.nn.Embedding
        layers: list

        def __call__(self, tokens):
            x = jax.vmap(self.embed)(tokens)
            for layer in self.layers:
                x = layer(x)
            return x

    keys = jax.random.split(jax.random.key(0), 3)
    model = Transformer(eqx.nn.Embedding(53, 16, key=keys[0]), [Block(keys[1]), Block(keys[2])])

    @eqx.filter_jit
    def run(model, tokens):
        return model(tokens)

    def unit(tokens):
        with sj.scopes(model):
            return run(model, tokens[0])[-1, 5]

    return unit, TOKENS


def linen_lstm():
    from flax import linen as nn

    class Tagger(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(53, 16, name="embed")(tokens)
            return nn.RNN(nn.LSTMCell(16), name="lstm")(x)

    model = Tagger()
    params = model.init(jax.random.key(0), TOKENS)
    return lambda tokens: model.apply(params, tokens)[0, -1, 5], TOKENS


def shared():
    from flax import linen as nn

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(53, 16, name="embed")(tokens)
            shared = nn.Dense(16, name="shared")
            return shared(nn.tanh(shared(x)))

    model = Twice()
    params = model.init(jax.random.key(0), TOKENS)
    return lambda tokens: model.apply(params, tokens)[0, -1, 5], TOKENS


# The model, the arrays with several consumers, and these by module.
MODELS = {
    "bert": (bert, "*/layer/*:input", {"self/query", "self/key", "self/value", "output"}),
    "gpt2": (gpt2, "*/h/*:input", {"ln_1", "add"}),
    "vit": (vit, "*/layer/*:input", {"layernorm_before", "add"}),
    "nnx": (nnx_transformer, "*/layers/*:input", {"norm", "add"}),
    "equinox": (equinox_transformer, "*/layers/*:input", {"norm", "add"}),
    "lstm": (linen_lstm, "*/LSTMCell_0:input", {"hi", "hf", "hg", "ho"}),
    "shared": (shared, "*/embed", {"shared"}),
}

SEMIRINGS = sj.SumProduct(), sj.AbsSumProduct(), sj.MaxProduct()


@functools.cache
def model(name):
    build, site, _ = MODELS[name]
    function, x = build()
    return function, x, site


@functools.cache
def branch_flows(name):
    function, x, site = model(name)
    return quick_jit(sj.branch_flow(function, SEMIRINGS, site))(x)


def gradients_at(function, x, names):
    """The gradient at each site by JAX: of what is added to the array there."""

    @quick_jit
    def gradients(x):
        values = sj.site_values(function, list(names))(x)

        def moved(delta, name):
            return sj.ablate(function, name, values[name] + delta)(x)

        return {name: jax.grad(moved)(jnp.zeros_like(values[name]), name) for name in names}

    return gradients(x)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_leaves_by_all_branches_together(name):
    function, x, site = model(name)
    flows = branch_flows(name)
    grads = quick_jit(sj.site_grads(function, SEMIRINGS, site, aggregate=-1))(x)
    # Where paths cancel, what is left is rounding, of the size of their mass × epsilon.
    slack = {at: 1e-6 + 2e-6 * np.max(mass) for at, mass in grads[1].items()}
    for combine, flow, grad in zip((np.sum, np.sum, np.max), flows, grads, strict=True):
        assert list(flow) == list(grad)
        for at, branches in flow.items():
            together = combine(np.stack([*branches.values()]), 0)
            np.testing.assert_allclose(together, grad[at], rtol=2e-4, atol=slack[at])
    # What is added to a carried array is cut off by what replaces it in the next iteration.
    last = slice(-1, None) if name == "lstm" else slice(None)
    for at, expected in gradients_at(function, x, grads[0]).items():
        wanted = expected.sum(-1)[last]
        np.testing.assert_allclose(grads[0][at][last], wanted, rtol=1e-3, atol=slack[at])


@pytest.mark.parametrize("name", MODELS)
def test_each_module_is_a_branch(name):
    _, flow, _ = branch_flows(name)
    assert frozenset(MODELS[name][2]) in {frozenset(own) for _, own in flow.branches}
    assert all(np.isfinite(v).all() for own in flow.values() for v in own.values())


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_what_flows_through_a_layer_is_all_there_is(name):
    """Every path from the embeddings to the output passes each layer's input: its share is 1."""
    function, x, site = model(name)
    flow = quick_jit(sj.site_flow(function, sj.Entropy(), site, source="*/embeddings"))(x)
    for share in flow.share().values():
        np.testing.assert_allclose(share.sum(), 1, rtol=1e-4)
    analysis = sj.component_flow(function, sj.Entropy(), 3, source="*/embeddings")
    components = jax.eval_shape(analysis, x)
    embedded = [part for part in components if part.endswith("/embeddings")]
    assert not embedded and any("/encoder" in part for part in components)


def test_both_uses_of_a_module_count():
    function, x, _ = model("shared")
    names = sj.list_sites(function)(x).names
    assert {"Twice/shared#1", "Twice/shared#2"} <= set(names)
    assert list(quick_jit(sj.site_grads(function, sj.SumProduct(), "*/shared"))(x)) == [
        "Twice/shared#1",
        "Twice/shared#2",
    ]
    without = sj.ablate(function, "*/shared")(x)
    assert without == 0


def test_a_recurrent_networks_sites_have_an_axis_of_iterations():
    function, x, _ = model("lstm")
    grads = quick_jit(sj.site_grads(function, sj.SumProduct(), "*/hi"))(x)
    ((name, gradient),) = grads.items()
    assert name.endswith("/LSTMCell_0/hi") and gradient.shape == (7, 1, 16)
    # Only the last step's output is read, but every step matters to it.
    assert (np.abs(gradient).sum((1, 2)) > 0).all()


def test_modules_of_one_name_are_found_by_it():
    function, x, _ = model("bert")
    grads = quick_jit(sj.site_grads(function, sj.SumProduct(), "*/query"))(x)
    assert len(grads) == 2 and all(name.endswith("/attention/self/query") for name in grads)
    with pytest.raises(ValueError, match=r"No site matches '\*/qwery'. The nearest are .*/query"):
        sj.site_grads(function, sj.SumProduct(), "*/qwery")(x)
