"""What flows through each head and each token, and what is lost without it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import semijax as sj

IDS = np.array([[3, 0, 2, 2, 4]])
HEADS, LAYERS, WIDTH = 2, 3, 4


def numbers(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def attend(x, weights):
    """A layer of attention whose heads have names."""
    split = [(x @ w).reshape(*x.shape[:-1], HEADS, -1) for w in weights[:3]]
    query, key, value = (
        sj.tap(y, n) for y, n in zip(split, ("query", "key", "value"), strict=True)
    )
    scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key))
    mixed = sj.tap(jnp.einsum("bhqk,bkhd->bqhd", sj.tap(scores, "pattern"), value), "mixed")
    return x + mixed.reshape(x.shape) @ weights[3]


def model(scanned):
    rng = np.random.default_rng(0)
    table, weights = numbers(rng, 6, WIDTH), numbers(rng, LAYERS, 4, WIDTH, WIDTH)

    def f(ids):
        with jax.named_scope("embed"):
            x = table[ids]
        if scanned:
            x, _ = lax.scan(lambda x, w: (attend(x, w), None), x, weights)
        else:
            for layer, own in enumerate(weights):
                with jax.named_scope(f"layer_{layer}"):
                    x = attend(x, own)
        return x[0, 1] @ jnp.arange(WIDTH)

    return f


def test_by_head_is_the_sum_over_all_else(tmp_path):
    f, sites = model(scanned=False), ["*value", "*pattern", "*mixed"]
    for semiring in (sj.AbsSumProduct(), sj.MaxProduct(), sj.Entropy()):
        whole = sj.site_flow(f, semiring, sites, source="embed/*")(IDS)
        by_head = sj.site_flow(f, semiring, sites, source="embed/*", by="head")(IDS)
        for name in whole:
            axis = 1 if name.endswith("pattern") else 2
            others = tuple(a for a in range(4) if a != axis)
            wanted = semiring.readout(semiring.sum(whole.elements[name], others))
            np.testing.assert_allclose(by_head[name], wanted, rtol=1e-5)
            assert by_head[name].shape == (HEADS,)
    by_head.plot().save(tmp_path / "heads.svg")
    assert "layer_0/mixed" in (tmp_path / "heads.svg").read_text()
    assert "<!-- head -->" in (tmp_path / "heads.svg").read_text()


def test_by_head_of_layers_in_a_loop():
    apart, together = (
        sj.site_flow(model(scanned), sj.AbsSumProduct(), "*value", source="embed/*", by="head")(IDS)
        for scanned in (False, True)
    )
    np.testing.assert_allclose(jnp.stack([*apart.values()]), together["value"], rtol=1e-5)


def test_by_token_and_head():
    f = model(scanned=False)
    grads = sj.site_grads(f, sj.SumProduct(), "*query", by=("token", "head"))(IDS)
    assert grads["layer_1/query"].shape == (IDS.shape[1], HEADS)
    mass = sj.site_flow(f, sj.AbsSumProduct(), "*query", source="embed/*", by="token")(IDS)
    last = mass.share()["layer_2/query"]
    assert (np.asarray(last) > 0).tolist() == [n == 1 for n in range(IDS.shape[1])]


@pytest.mark.parametrize("by", [("token", "head"), ("head", "token")])
def test_a_grid_is_printed_and_drawn_with_its_axes_in_the_arrays_order(by, tmp_path):
    sites = ["layer_0/query", "layer_1/query"]
    flow = sj.site_flow(model(False), sj.AbsSumProduct(), sites, source="embed/*", by=by)(IDS)
    header, *lines, _ = str(flow).splitlines()
    tokens = IDS.shape[1]
    assert flow.by == ("token", "head") and flow[sites[0]].shape == (tokens, HEADS)
    assert header.split()[:4] == ["site", "token", "head", "0"] and len(lines) == 2 * tokens
    for n, line in enumerate(lines):
        site, token, *numbers = line.split()
        assert (site, int(token)) == (sites[n // tokens], n % tokens)
        wanted = flow[site][n % tokens]
        np.testing.assert_allclose([float(x) for x in numbers], wanted, rtol=1e-3)
    flow.plot().save(tmp_path / "grid.svg")
    drawn = (tmp_path / "grid.svg").read_text()
    assert "<!-- head -->" in drawn and "<!-- layer_1/query, token 1 -->" in drawn
    mixed = ["layer_0/query", "layer_0/pattern"]  # [token, head] and [head, token]
    both = sj.site_flow(model(False), sj.AbsSumProduct(), mixed, source="embed/*", by=by)(IDS)
    assert both.by == () and "head 0" not in str(both)


def test_effects_are_those_of_ablate():
    f = model(scanned=False)
    found = sj.ablation_effects(f, ["*value", "*pattern"], "head")(IDS)
    for name, effects in found.items():
        for head in range(HEADS):
            axis, rank = (1, 2) if name.endswith("pattern") else (2, 3)
            shape = (1, HEADS) if axis == 1 else (1, IDS.shape[1], HEADS)
            where = np.broadcast_to(np.arange(HEADS) == head, shape)
            assert where.ndim == rank
            without = sj.ablate(f, name, where=where)(IDS)
            np.testing.assert_allclose(effects[head], f(IDS) - without, rtol=1e-4, atol=1e-5)


def test_effects_in_a_loop():
    apart, together = (
        sj.ablation_effects(model(scanned), "*value", "head")(IDS) for scanned in (False, True)
    )
    assert together["value"].shape == (LAYERS, HEADS)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(jnp.stack([*apart.values()]), together["value"], **close)
    jitted = jax.jit(sj.ablation_effects(model(True), "*value", "head", traced=()))(IDS)
    np.testing.assert_allclose(jitted["value"], together["value"], **close)


def test_models_of_others():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(6, 8, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 8, 8, rngs=rngs, decode=False)

        def __call__(self, ids):
            x = self.embed(ids)
            return x + self.attention(x)

    block = Block(nnx.Rngs(0))

    def of_block(ids):
        with sj.scopes(block):
            return block(ids)[0, 2, 0]

    rows = sj.list_sites(of_block)(IDS).rows
    with_heads = [row.names[0] for row in rows if row.shape[-2:] == (2, 4)]
    how = {"source": "*embed*", "by": "head"}
    flow = sj.site_flow(of_block, sj.AbsSumProduct(), with_heads, **how)(IDS)
    assert len(flow) >= 3
    assert all(x.shape == (2,) for x in flow.values())

    class Encoder(eqx.Module):
        embed: eqx.nn.Embedding
        attention: eqx.nn.MultiheadAttention

        def __call__(self, ids):
            x = jax.vmap(self.embed)(ids)
            return x + self.attention(x, x, x)

    encoder = Encoder(
        eqx.nn.Embedding(6, 8, key=jax.random.key(0)),
        eqx.nn.MultiheadAttention(2, 8, key=jax.random.key(1)),
    )

    def of_encoder(ids):
        with sj.scopes(encoder):
            return encoder(ids)[2, 0]

    level = "token", "head"
    stories = sj.top_paths(of_encoder, 9, source="*embed*", distinct=level)(IDS[0])
    assert {head for path in stories for _, head in path.story} >= {None, 0}


def test_errors():
    f = model(scanned=False)
    with pytest.raises(
        ValueError, match=r"no axis known as 'head', of 3 axes; known are: 'batch', 'token'\."
    ):
        sj.site_flow(f, sj.AbsSumProduct(), "embed/*", source="embed/*", by="head")(IDS)
    with pytest.raises(ValueError, match="give one of them"):
        sj.site_grads(f, sj.SumProduct(), "*query", by="head", aggregate=0)(IDS)
    with pytest.raises(ValueError, match="no axis known as 'word'"):
        sj.ablation_effects(f, "*query", "word")(IDS)
    named = sj.site_grads(
        f, sj.SumProduct(), "*query", by="unit", axes={"*query": (None,) * 3 + ("unit",)}
    )
    assert named(IDS)["layer_0/query"].shape == (WIDTH // HEADS,)


def test_a_loop_over_tokens():
    rng = np.random.default_rng(0)
    table = numbers(rng, 6, WIDTH)

    def f(ids):
        def cell(state, x):
            with jax.named_scope("cell"):
                state = jnp.tanh(state + x)
            return state, None

        with jax.named_scope("embed"):
            x = table[ids]
        return lax.scan(cell, jnp.zeros(WIDTH), x)[0].sum()

    row = sj.list_sites(f, match="cell/tanh")(IDS[0]).rows[0]
    assert (row.shape, row.axes) == ((5, WIDTH), ("token", None))
    mass = sj.AbsSumProduct()
    flow = sj.site_flow(f, mass, "cell/tanh", source="embed/*", by="token")(IDS[0])
    whole = sj.site_flow(f, mass, "cell/tanh", source="embed/*", aggregate=-1)(IDS[0])
    np.testing.assert_allclose(flow["cell/tanh"], whole["cell/tanh"])
    lost = sj.ablation_effects(f, "cell/tanh", "token")(IDS[0])["cell/tanh"]
    for token in range(5):
        without = sj.ablate(f, "cell/tanh", where=np.arange(5) == token)(IDS[0])
        np.testing.assert_allclose(lost[token], f(IDS[0]) - without, rtol=1e-4, atol=1e-5)


def test_more_names_than_axes():
    f = model(scanned=False)
    axes = {"*query": ("a", "b", "c", "d", "e")}
    with pytest.raises(ValueError, match="has 4 axes, and axes names 5"):
        sj.site_grads(f, sj.SumProduct(), "*query", by="a", axes=axes)(IDS)


def test_heads_before_they_are_split_and_after_they_are_joined():
    """An axis of hidden units is that of the heads times what each head has."""
    f = model(scanned=False)
    mass = {"source": "embed/*", "by": "head"}
    table = sj.list_sites(f, match="layer_1/*")(IDS)
    (query,) = [r.names[0] for r in table if r.names[0].endswith("dot_general#1")]
    (joined,) = [r.names[0] for r in table if r.names[0].endswith("reshape#4")]
    for split, whole in (("layer_1/query", query), ("layer_1/mixed", joined)):
        apart, together = (
            sj.site_flow(f, sj.AbsSumProduct(), site, **mass)(IDS)[site] for site in (split, whole)
        )
        assert together.shape == (HEADS,)
        np.testing.assert_allclose(apart, together, rtol=1e-6)
        effects = [sj.ablation_effects(f, site, "head")(IDS)[site] for site in (split, whole)]
        np.testing.assert_allclose(*effects, rtol=1e-4, atol=1e-6)
    both = sj.site_grads(f, sj.SumProduct(), query, by=("token", "head"))(IDS)[query]
    assert both.shape == (IDS.shape[1], HEADS)


def test_two_names_of_one_axis_are_refused():
    def f(ids):
        x = jnp.ones((6, WIDTH))[ids]
        y = jnp.einsum("thd,shd->ths", *2 * [x.reshape(len(ids), HEADS, -1)])
        return sj.tap(y.reshape(-1), "flat").sum()

    flat = sj.site_flow(f, sj.AbsSumProduct(), "flat", source="*gather", by="head")(IDS[0])["flat"]
    assert flat.shape == (HEADS,)
    with pytest.raises(ValueError, match="one axis belongs to several"):
        sj.site_grads(f, sj.SumProduct(), "flat", by=("token", "head"))(IDS[0])
