"""Real models, unmodified, between two inputs that have nothing in common: the parts add up."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import semijax as sj
from semijax.zoo.bert import BertConfig, BertForMaskedLM

RNG = np.random.default_rng(5)
SMALL = {"num_attention_heads": 2, "num_hidden_layers": 2}
WORDS, OTHERS = (jnp.asarray(RNG.integers(0, 50, (1, 8))) for _ in range(2))


def bert():
    from transformers import BertConfig, FlaxBertModel

    config = BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, max_position_embeddings=16, **SMALL
    )
    model = FlaxBertModel(config)
    return lambda t: model(t).last_hidden_state[0, 3, 5], WORDS, OTHERS, "*/embeddings"


def gpt2():
    from transformers import FlaxGPT2LMHeadModel, GPT2Config

    model = FlaxGPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    )
    return lambda t: model(t).logits[0, -1, 5], WORDS, OTHERS, "*/wte"


def vit():
    from transformers import FlaxViTModel, ViTConfig

    config = ViTConfig(hidden_size=16, intermediate_size=32, image_size=32, patch_size=8, **SMALL)
    model = FlaxViTModel(config)
    image, other = (jnp.asarray(RNG.normal(size=(1, 3, 32, 32)), jnp.float32) for _ in range(2))
    return lambda x: model(x).last_hidden_state[0, 0, 3], image, other, None


def nnx_bert():
    model = BertForMaskedLM(BertConfig(50, 16, 2, 2, 32, 16), rngs=nnx.Rngs(0))

    def logit(tokens):
        with sj.scopes(model):
            return model(tokens)[0, 3, 5]

    return logit, WORDS, OTHERS, "*/embeddings"


def lstm():
    class Reader(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.RNN(nn.LSTMCell(8))(x)[:, -1])[0, 0]

    x, other = (jnp.asarray(RNG.normal(size=(1, 9, 4)), jnp.float32) for _ in range(2))
    params = Reader().init(jax.random.key(0), x)
    return lambda x: Reader().apply(params, x), x, other, None


def equinox():
    class Mixer(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        norm: eqx.nn.LayerNorm
        mlp: eqx.nn.MLP

        def __call__(self, x):
            h = jax.vmap(self.norm)(x)
            x = x + self.attention(h, h, h)
            return jax.vmap(self.mlp)(x).sum(0)[1]

    keys = jax.random.split(jax.random.key(1))
    mlp = eqx.nn.MLP(8, 3, 16, 2, activation=jax.nn.gelu, key=keys[1])
    model = Mixer(eqx.nn.MultiheadAttention(2, 8, key=keys[0]), eqx.nn.LayerNorm(8), mlp)
    x, other = (jnp.asarray(RNG.normal(size=(5, 8)), jnp.float32) for _ in range(2))
    return model, x, other, None


@pytest.mark.parametrize("make", [bert, gpt2, vit, nnx_bert, lstm, equinox])
def test_contributions_add_up(make):
    model, x, other, source = make()
    whole = float(model(x)) - float(model(other))
    contrast = sj.Contrast(other)
    if source is None:
        found = float(sj.semiring_grad(model, sj.SumProduct(), weighting=contrast)(x).sum())
    else:
        sites = sj.site_grads(model, sj.SumProduct(), source, weighting=contrast)(x)
        found = float(sum(each.sum() for each in sites.values()))
    assert found == pytest.approx(whole, rel=1e-4, abs=1e-6)
    left = sj.residuals(model, (x,), (other,), source=source)
    assert abs(left.remainder) <= 1e-4 * abs(whole) + 1e-6
    assert left.whole == pytest.approx(whole, rel=1e-4, abs=1e-6)
