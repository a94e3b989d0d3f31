"""What is named how: the table of docs/guides/names.md, on one small model in each library."""

import contextlib
import functools
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from penzai import pz

import semijax as sj

NAMES = Path(__file__).parents[2] / "docs" / "guides" / "names.md"
WORDS = jnp.array([3, 1, 4, 1])
VOCABULARY, WIDTH, HIDDEN, HEADS = 7, 6, 8, 2
EACH = WIDTH // HEADS


class Row(NamedTuple):
    """What the page says of a library: what names its modules, and what the parts are called."""

    library: str
    names_by: str
    embedding: str
    block: str
    queries: str
    hidden: str
    readout: str

    @property
    def parts(self):
        return self[2:]


def table_of_names():
    text = NAMES.read_text(encoding="utf-8")
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [Row(*(cell.strip(" `") for cell in line.split("|"))) for line in lines[2:]]


TABLE = {row.library: row for row in table_of_names()}


def nnx_model():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
            self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
            self.down = nnx.Linear(HIDDEN, WIDTH, rngs=rngs)

        def __call__(self, x):
            x = x + self.attention(x)
            return x + self.down(jnp.tanh(self.up(x)))

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
            self.blocks = nnx.List([Block(rngs), Block(rngs)])
            self.head = nnx.Linear(WIDTH, 1, rngs=rngs)

        def __call__(self, words):
            x = self.embed(words)
            for block in self.blocks:
                x = block(x)
            return self.head(x)[-1, 0]

    model = Model(nnx.Rngs(0))
    definition, params, rest = nnx.split(model, nnx.Param, ...)
    return model, lambda params, words: nnx.merge(definition, params, rest)(words), params


def linen_model():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = x + linen.MultiHeadDotProductAttention(HEADS, name="attention")(x)
            hidden = linen.tanh(linen.Dense(HIDDEN, name="up")(x))
            return x + linen.Dense(WIDTH, name="down")(hidden)

    class Model(linen.Module):
        @linen.compact
        def __call__(self, words):
            x = linen.Embed(VOCABULARY, WIDTH, name="embed")(words)
            for n in range(2):
                x = Block(name=f"block_{n}")(x)
            return linen.Dense(1, name="head")(x)[-1, 0]

    model = Model()
    return model, model.apply, model.init(jax.random.key(0), WORDS)


def equinox_model():
    class Block(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        mlp: eqx.nn.MLP

        def __init__(self, key):
            one, other = jax.random.split(key)
            self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=one)
            self.mlp = eqx.nn.MLP(WIDTH, WIDTH, HIDDEN, 1, jnp.tanh, key=other)

        def __call__(self, x):
            x = x + self.attention(x, x, x)
            return x + jax.vmap(self.mlp)(x)

    class Model(eqx.Module):
        embed: eqx.nn.Embedding
        blocks: list[Block]
        head: eqx.nn.Linear

        def __init__(self, key):
            first, *keys, last = jax.random.split(key, 4)
            self.embed = eqx.nn.Embedding(VOCABULARY, WIDTH, key=first)
            self.blocks = [Block(key) for key in keys]
            self.head = eqx.nn.Linear(WIDTH, 1, key=last)

        def __call__(self, words):
            x = jax.vmap(self.embed)(words)
            for block in self.blocks:
                x = block(x)
            return jax.vmap(self.head)(x)[-1, 0]

    model = Model(jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    return model, lambda params, words: eqx.combine(params, rest)(words), params


def keras_model():
    import keras

    layers = keras.layers

    class Block(layers.Layer):
        def __init__(self, name):
            super().__init__(name=name)
            self.attention = layers.MultiHeadAttention(HEADS, EACH, name="attention")
            self.up = layers.Dense(HIDDEN, "tanh", name="up")
            self.down = layers.Dense(WIDTH, name="down")

        def call(self, x):
            x = x + self.attention(x, x)
            return x + self.down(self.up(x))

    words = keras.Input(WORDS.shape, dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH, name="embed")(words)
    for n in range(2):
        x = Block(f"block_{n}")(x)
    model = keras.Model(words, layers.Dense(1, name="head")(x), name="model")

    def call(params, words):
        with keras.StatelessScope(zip(model.variables, params, strict=True)):
            return model(words[None])[0, -1, 0]

    return model, call, [variable.value for variable in model.variables]


def haiku_model():
    class Block(hk.Module):
        def __call__(self, x):
            init = hk.initializers.VarianceScaling()
            attention = hk.MultiHeadAttention(HEADS, EACH, w_init=init, name="attention")
            x = x + attention(x, x, x)
            return x + hk.nets.MLP([HIDDEN, WIDTH], activation=jnp.tanh, name="mlp")(x)

    class Model(hk.Module):
        def __call__(self, words):
            x = hk.Embed(VOCABULARY, WIDTH, name="embed")(words)
            for n in range(2):
                x = Block(name=f"block_{n}")(x)
            return hk.Linear(1, name="head")(x)[-1, 0]

    model = hk.without_apply_rng(hk.transform(lambda words: Model()(words)))
    return model, model.apply, model.init(jax.random.key(0), WORDS)


def penzai_model():
    width, hidden = {"embedding": WIDTH}, {"neurons": HIDDEN}
    by_head = {"heads": HEADS, "projection": EACH}
    queries, keys = ("seq", "heads", "projection"), ("kv_seq", "heads", "projection")
    pattern = ("heads", "seq", "kv_seq")

    def linear(name, inputs, outputs):
        return pz.nn.Linear.from_config(name, jax.random.key(0), inputs, outputs)

    def block(name):
        def of_keys(part):
            renamed = pz.nn.RenameAxes("seq", "kv_seq")
            return pz.nn.Sequential([linear(f"{name}/{part}", width, by_head), renamed])

        scores = pz.nn.NamedEinsum((queries, keys), pattern)
        mixed = pz.nn.NamedEinsum((pattern, keys), queries)
        attention = pz.nn.Attention(
            input_to_query=linear(f"{name}/query", width, by_head),
            input_to_key=of_keys("key"),
            input_to_value=of_keys("value"),
            query_key_to_attn=pz.nn.Sequential([scores, pz.nn.Softmax("kv_seq")]),
            attn_value_to_output=pz.nn.Sequential([mixed, linear(f"{name}/out", by_head, width)]),
        )
        up, down = linear(f"{name}/up", width, hidden), linear(f"{name}/down", hidden, width)
        mlp = pz.nn.Sequential([up, pz.nn.Elementwise(jnp.tanh), down])
        return pz.nn.Sequential([pz.nn.Residual(attention), pz.nn.Residual(mlp)])

    @pz.pytree_dataclass
    class Model(pz.nn.Layer):
        embed: pz.nn.EmbeddingLookup
        blocks: list[pz.nn.Layer]
        head: pz.nn.Layer

        def __call__(self, words):
            x = self.embed(words)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    table = pz.nn.EmbeddingTable.from_config("embed", jax.random.key(0), VOCABULARY, width)
    blocks = [block(f"block_{n}") for n in range(2)]
    model = Model(pz.nn.EmbeddingLookup(table), blocks, linear("head", width, {"out": 1}))
    unbound, params = pz.unbind_params(model, freeze=True)

    def call(params, words):
        out = pz.bind_variables(unbound, params)(pz.nx.wrap(words).tag("seq"))
        return out.unwrap("seq", "out")[-1, 0]

    return model, call, params


MODELS = {
    "Flax NNX": nnx_model,
    "Flax Linen": linen_model,
    "Equinox": equinox_model,
    "Keras": keras_model,
    "Haiku": haiku_model,
    "Penzai": penzai_model,
}


class Example(NamedTuple):
    """A model in a library, and what the page says of it."""

    row: Row
    call: Any
    params: Any

    def output(self, words):
        return self.call(self.params, words)


@functools.cache
def built(library):
    return MODELS[library]()


@pytest.fixture(params=MODELS)
def example(request, keras_on_jax):
    """A model whose modules have names, by ``sj.scopes`` where the page says so."""
    model, call, params = built(request.param)
    row = TABLE[request.param]
    with sj.scopes(model) if row.names_by == "sj.scopes" else contextlib.nullcontext():
        yield Example(row, call, params)


def test_the_table_is_of_these_libraries():
    assert list(TABLE) == list(MODELS)
    assert {row.names_by for row in TABLE.values()} == {"sj.scopes", "itself"}


def test_the_names_in_the_table(example):
    """Each is of one array, with an axis of tokens; there are no others at the same level."""
    for name in example.row.parts:
        (site,) = sj.list_sites(example.output, match=name)(WORDS)
        assert site.shape[site.axes.index("token")] == len(WORDS)
    table = sj.list_sites(example.output)(WORDS)
    other = example.row.block.replace("0", "1")
    parts = {example.row.embedding, example.row.block, other, example.row.readout}
    depths = {name.count("/") + 1 for name in parts}
    shortened = {"/".join(row.scope.split("/")[: max(depths)]) for row in table}
    root = example.row.embedding.partition("/")[0]
    assert shortened - {"", root} == parts
    assert f"{other}:input" in table.names


def test_a_module_has_no_second_name_and_no_private_one(example):
    for row in sj.list_sites(example.output)(WORDS):
        names = row.scope.split("/")
        assert not re.search(r"(^|/)_|\.", row.scope)
        assert all(a != b for a, b in itertools.pairwise(names))


def test_names_of_two_calls(example):
    def twice(words):
        return example.output(words) + example.output(words[::-1])

    for name in example.row.parts:
        rows = sj.list_sites(twice, match=name)(WORDS)
        assert [n for row in rows for n in row.names if n.startswith(f"{name}#")] == [
            f"{name}#1",
            f"{name}#2",
        ]


def test_tokens_and_heads(example):
    row, mass = example.row, sj.AbsSumProduct()
    (pattern,) = sj.list_sites(example.output, match=f"{row.block}/*/exp")(WORDS)
    assert sorted(filter(None, {*pattern.axes} - {"batch"})) == ["head", "token"]
    assert pattern.shape[pattern.axes.index("head")] == HEADS
    name = pattern.names[0]
    by_head = sj.site_flow(example.output, mass, name, source=row.embedding, by="head")(WORDS)
    assert by_head[name].shape == (HEADS,) and (by_head[name] > 0).all()
    by_token = sj.site_flow(example.output, mass, row.hidden, source=row.embedding, by="token")
    assert by_token(WORDS)[row.hidden].shape == (len(WORDS),)


def test_stories_are_told_by_the_names(example):
    row = example.row
    (path,) = sj.top_paths(example.output, source=row.embedding, distinct="module")(WORDS)
    assert path.story[0] == row.embedding and row.readout in path.story
    (path,) = sj.top_paths(example.output, source=row.embedding, through=row.queries)(WORDS)
    assert any(node.scope.startswith(row.queries) for node in path.nodes)


def test_the_gradient_is_jaxs(example):
    def output(params):
        return example.call(params, WORDS)

    ours = sj.semiring_grad(output, sj.SumProduct())(example.params)
    jaxs = jax.grad(output)(example.params)
    assert jax.tree.structure(ours) == jax.tree.structure(jaxs)
    for a, b in zip(*map(jax.tree.leaves, (ours, jaxs)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# What the page says below its table.


def scope_of_tanh(fun, *args):
    (row,) = sj.list_sites(fun, match="*tanh")(*args)
    return row.scope


def test_other_methods_in_linen():
    class Block(linen.Module):
        def encode(self, x):
            return linen.tanh(x)

        def __call__(self, x):
            return self.encode(x)

    class Model(linen.Module):
        method: str

        @linen.compact
        def __call__(self, x):
            return getattr(Block(name="block"), self.method)(x)

    x = jnp.ones(3)
    assert scope_of_tanh(lambda x: Model("encode").apply({}, x), x) == "Model/block.encode"
    assert scope_of_tanh(lambda x: Model("__call__").apply({}, x), x) == "Model/block"


def test_other_methods_in_haiku():
    class Block(hk.Module):
        def encode(self, x):
            return jnp.tanh(x)

    class Model(hk.Module):
        def __call__(self, x):
            return Block(name="block").encode(x)

    apply = hk.transform(lambda x: Model()(x)).apply
    assert scope_of_tanh(lambda x: apply({}, None, x), jnp.ones(3)) == "model/encode/block"


def test_other_methods_in_keras(keras_on_jax):
    class Block(keras_on_jax.layers.Layer):
        def encode(self, x):
            return jnp.tanh(x)

    class Model(keras_on_jax.Model):
        def __init__(self):
            super().__init__(name="model")
            self.block = Block(name="block")
            self.block.build((1, 3))

        def call(self, x):
            return self.block.encode(x)

    assert scope_of_tanh(Model(), jnp.ones((1, 3))) == "model"


def test_other_methods_under_scopes():
    class Block(nnx.Module):
        def encode(self, x):
            return jnp.tanh(x)

    class Model(nnx.Module):
        def __init__(self):
            self.block = Block()

        def __call__(self, x):
            return self.block.encode(x)

    model = Model()
    with sj.scopes(model):
        assert scope_of_tanh(model, jnp.ones(3)) == "Model/block"


def test_a_haiku_module_names_itself_within_scopes_too():
    class Model(hk.Module):
        def __call__(self, x):
            return jnp.tanh(x)

    def call(x):
        model = Model()
        with sj.scopes(model):
            return model(x)

    apply = hk.transform(call).apply
    assert scope_of_tanh(lambda x: apply({}, None, x), jnp.ones(3)) == "model"


def test_a_stateless_call_of_keras_leaves_out_the_model(keras_on_jax):
    model, _, values = built("Keras")

    def output(words):
        out, _ = model.stateless_call(values, [], words[None])
        return out[0, -1, 0]

    names = sj.list_sites(output)(WORDS).names
    for name in TABLE["Keras"].parts:
        assert name not in names and name.removeprefix("model/") in names
