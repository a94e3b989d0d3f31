"""The k best stories are those of all paths, grouped by what they say."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.trace import scope_names

from ..weightings.programs import draw

ORDERS = ["abs", "max", "min"]
MAX_PATHS = 5_000


def by_module(depth=None):
    def label(node):
        if not node.primitive:
            return node.variable
        return scope_names.shorten(node.scope, depth)

    return label


def parity(node):
    """Tells something of some nodes only."""
    return sum(node.index) % 2 if len(node.index) == 1 else None


def primitive(node):
    return node.primitive if node.primitive in ("add", "mul", "dot_general", "tanh") else None


def everything(node):
    return node.variable, node.index


LEVELS = {
    "module": ("module", by_module()),
    "depth": (1, by_module(1)),
    "primitive": (primitive, primitive),
    "parity": (parity, parity),
    "both": (("module", parity), lambda node: (by_module()(node), parity(node))),
    "nothing": (lambda node: None, lambda node: None),
    "every node": (everything, everything),
}


def story_of(path, label):
    labels = [found for node in path.nodes if (found := label(node)) not in (None, (None, None))]
    return tuple(key for key, _ in itertools.groupby(labels))


def better(by):
    return {"abs": abs, "max": lambda w: w, "min": lambda w: -w}[by]


def check(function, *args, level, by="abs", k=20, **options):
    """The best path of each of the k best stories, and what all paths say together."""
    asked, label = LEVELS[level]
    everyone = sj.top_paths(function, MAX_PATHS, by=by, **options)(*args)
    if len(everyone) == MAX_PATHS:
        pytest.skip("too many paths to list")
    groups = {}
    for path in everyone:
        groups.setdefault(story_of(path, label), []).append(path)
    semiring = {"sum": sj.SumProduct(), "mass": sj.AbsSumProduct(), "paths": sj.PathCount()}
    found = sj.top_paths(function, k, by=by, distinct=asked, semiring=semiring, **options)(*args)
    assert len(found) == min(k, len(groups))
    assert len({path.story for path in found}) == len(found)
    size = better(by)
    best = sorted((size(paths[0].contribution) for paths in groups.values()), reverse=True)
    scale = max(map(abs, best), default=1)
    np.testing.assert_allclose(
        [size(path.contribution) for path in found], best[:k], rtol=1e-8, atol=1e-12 * scale
    )
    for path in found:
        assert path.story == story_of(path, label)
        own = groups[path.story]
        close = {"rel": 1e-8, "abs": 1e-10 * scale}
        assert path.contribution == pytest.approx(own[0].contribution, **close)
        amounts = [each.contribution for each in own]
        assert path.together["sum"] == pytest.approx(math.fsum(amounts), **close)
        assert path.together["mass"] == pytest.approx(math.fsum(map(abs, amounts)), **close)
        number = sum(amount != 0 for amount in amounts)
        assert math.exp(path.together["paths"]) == pytest.approx(number)  # it reads a logarithm
        assert path.verify() < 1e-9


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def small_numbers(rng, *shape):
    return jnp.asarray(rng.normal(size=shape).round(2))


def residual(x):
    rng = np.random.default_rng(0)
    with jax.named_scope("embed"):
        x = x @ small_numbers(rng, 2, 2)
    for layer in range(2):
        with jax.named_scope(f"layer_{layer}"):
            with jax.named_scope("attention"):
                weights = jnp.tanh(x @ x.T)
                mixed = weights @ x
            x = x + mixed
            with jax.named_scope("mlp"):
                hidden = jax.nn.relu(x @ small_numbers(rng, 2, 1))
            x = x + hidden.sum(-1, keepdims=True)
    return x[0, 0] * x[1, 1]


def scanned(x):
    def body(carry, row):
        with jax.named_scope("cell"):
            carry = jnp.tanh(carry * row) + 0.5 * carry
        return carry, carry[0] * row

    carry, rows = lax.scan(body, x[0], x)
    return carry.sum() + (rows * rows).sum()


def branches(x):
    def one(x):
        with jax.named_scope("one"):
            return x * x[::-1]

    y = lax.cond(x[0, 0] > 0, one, jnp.sin, x)
    return (y * x).sum() + sj.atomic(lambda z: (z * z).sum())(y)


FUNCTIONS = {
    "residual": (residual, (2, 2)),
    "scanned": (scanned, (3, 2)),
    "branches": (branches, (2, 2)),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, level):
    function, shape = FUNCTIONS[name]
    x = small_numbers(np.random.default_rng(len(name)), *shape)
    for by in ORDERS:
        check(function, x, level=level, by=by, k=12)


def finite_program(seed):
    """A random program, its arguments, and the numbers of those that paths start from."""
    drawn = next(draw(seed), None)
    if drawn is None:
        pytest.skip("no program of this seed has a derivative")
    program, args, _ = drawn
    argnums = tuple(range(len(args)))
    sweep = sj.semiring_grad(program.scalar, sj.AbsMaxProduct(), argnums)(*args)
    if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(sweep)):
        pytest.skip("a derivative on a path is infinite")
    return program, args, argnums


def check_random(seed, level, by):
    program, args, argnums = finite_program(seed)
    check(program.scalar, *args, level=level, by=by, argnums=argnums)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed):
    check_random(seed, [*LEVELS][seed % len(LEVELS)], ORDERS[seed % 3])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_random_programs(seed):
    for level in ("module", "primitive", "parity", "every node"):
        check_random(seed, level, ORDERS[seed % 3])
    for by in ORDERS:
        check_random(seed, "primitive", by)


@pytest.mark.parametrize("level", ["module", "parity"])
@pytest.mark.parametrize("by", ORDERS)
def test_between_two_runs(level, by):
    x, r = small_numbers(np.random.default_rng(4), 2, 3, 2)
    check(scanned, x, level=level, by=by, k=12, weighting=sj.Contrast(r))


@pytest.mark.parametrize(
    ("level", "by"), [("module", "abs"), ("depth", "max"), ("both", "min"), ("nothing", "abs")]
)
@pytest.mark.parametrize("through", ["*/mlp", "layer_1*", "cell[1]", "*/tanh"])
def test_through(through, by, level):
    function, shape = FUNCTIONS["scanned" if through == "cell[1]" else "residual"]
    x = small_numbers(np.random.default_rng(5), *shape)
    check(function, x, level=level, by=by, k=12, through=through)


def test_from_sites_that_follow_each_other():
    def f(x):
        hidden = sj.tap(jnp.tanh(x), "hidden")
        return (sj.tap(hidden * hidden[::-1], "hidden") * x).sum()

    x = small_numbers(np.random.default_rng(6), 3)
    for level in ("module", "primitive"):
        check(f, x, level=level, source=["hidden#1", "hidden#2"], k=12)


def test_an_infinite_weight_that_leads_nowhere():
    def f(x):
        root = jnp.sqrt(x)
        return root[0] * x[0] + x.sum()

    x = jnp.array([4.0, 0.0])
    assert len(sj.top_paths(lambda x: jnp.sqrt(x)[0], 5)(x)) == 1
    check(f, x, level="primitive")
    check(f, x, level="every node")


def rooted(x):
    roots = jnp.sqrt(lax.clamp(0.0, x, 4.0))  # steep where x is cut off
    return jnp.sum(x * jnp.array([0.69, 0.36])) - jnp.sum(roots * jnp.array([0.49, 0.93]))


def normalized(x):
    own = jax.nn.softmax(x, axis=1, where=np.array([[True, False], [False, False]]))  # a row of 0/0
    largest = jax.nn.one_hot(jnp.argmax(jnp.ravel(own)), 4) * jnp.ravel(own)
    return jnp.sum(largest * jnp.array([-0.61, -0.7, -1.3, -0.42])) - x[0, 0] * x[1, 1]


@pytest.mark.parametrize("level", ["every node", "parity"])
@pytest.mark.parametrize("by", ORDERS)
def test_weights_that_are_no_numbers_and_are_cut_off(by, level):
    check(rooted, jnp.array([-1.22, 1.09]), by=by, level=level)
    check(normalized, jnp.array([[2.0, 0.5], [0.0, 0.5]]), by=by, level=level)


def test_levels():
    f, x = scanned, jnp.ones((2, 2))
    for level, error in [(0, TypeError), (1.5, TypeError), ((), ValueError), (b"x", TypeError)]:
        with pytest.raises(error):
            sj.top_paths(f, 3, distinct=level)(x)
    with pytest.raises(TypeError, match="at which level"):
        sj.top_paths(f, 3, semiring=sj.Entropy())(x)


def test_told():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    paths = sj.top_paths(attention, 20, distinct=("module", "token", "head"))(table)
    words = ["who", "does", "read", "it"]
    lines = paths.tell(words).splitlines()
    assert len(lines) == len(paths)
    told = [path.tell(words) for path in paths]
    crossing = next(t for t in told if "attention, head 1 → 'does'" in t)
    path = paths[told.index(crossing)]
    assert crossing.startswith(f"mass {path.together:.4g}: [0] → ")
    assert crossing.endswith(f"(best path {path.contribution:+.4g})")
    assert "token 1" in paths[0].tell()
    again = paths.tell(["does", "does", "read", "it"])
    assert "'does' (token 1)" in again and "'read'" in again and "'read' (" not in again
    with pytest.raises(ValueError, match="tokens has 1 texts"):
        paths.tell(["who"])
    frame = paths.to_dataframe()
    assert frame.weight.tolist() == [path.weight for path in paths]
    assert frame.story.tolist() == [path.story for path in paths]
    read = sj.Path.from_json(paths[0].to_json())
    assert read.tell(words) == paths[0].tell(words)


def test_a_story_tells_nothing_in_which_its_paths_differ():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    words = ["who", "does", "read", "it"]

    def told(level):
        search = sj.top_paths(attention, 8, distinct=level, semiring=sj.SumProduct())
        return search(table), search(table).tell(words)

    assert "head" in sj.top_paths(attention, 8)(table).tell(words)
    paths, text = told(("module", "token", "head"))
    assert "head" in text and "'read'" in text and "[3, 3]" not in text
    paths, text = told(("module", "token"))
    assert "head" not in text and "'read'" in text
    lines = [f"{n}. {path.tell(words)}" for n, path in enumerate(paths, 1)]
    assert text.splitlines() == lines
    paths, text = told(("module", "head"))
    assert "head" in text and "'read'" not in text and "token" not in text
    assert "attention" in told("module")[1] and "head" not in told("module")[1]
    paths, text = told("token")
    assert "attention" not in text and "'read'" in text
    assert "head" in told(lambda node: node.scope or None)[1]  # nothing is known of such labels
    assert repr(paths) == paths.tell()
    for path in told(("module", "token"))[0]:
        text = f"{path.together:+.4g}: "
        assert path.adds_up and path.tell(words).startswith(text)


def test_by_size_and_total_text():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    other = small_numbers(np.random.default_rng(3), 5, 4)

    def search(k, semiring):
        contrast = sj.Contrast(other)
        level = "module", "token"
        return sj.top_paths(attention, k, distinct=level, semiring=semiring, weighting=contrast)

    stories = search(100, sj.SumProduct())(table)  # all there are
    ordered = stories.by_size()
    sizes = [abs(path.together) for path in ordered]
    assert sizes == sorted(sizes, reverse=True) != [abs(path.together) for path in stories]
    assert {path.story for path in ordered} == {path.story for path in stories}
    whole = float(attention(table) - attention(other))
    assert math.fsum(path.together for path in stories) == pytest.approx(whole, rel=1e-4)
    told = f"{whole:+.4g} of {whole:.4g}, 100%"
    assert stories.total_text == f"These {len(stories)} stories together: {told}"
    some = ordered[:3]
    part = math.fsum(path.together for path in some)
    told = f"{part:+.4g} of {whole:.4g}, {part / whole:.0%}"
    assert some.tell().endswith(f"\nThese 3 stories together: {told}")
    page = some._repr_html_()
    assert told in page and some[1].together_text in page and "best path" in page
    assert ordered[:1].total_text == ""

    plain = sj.top_paths(attention, 3, distinct="module", semiring=sj.SumProduct())(table)
    assert plain.total_text == ""  # derivatives by different elements add up to nothing
    masses = search(5, sj.AbsSumProduct())(table)
    assert masses.by_size()[0].together == max(path.together for path in masses)
    assert masses.total_text == "" and "together" not in masses.tell()
    for paths in (
        sj.top_paths(attention, 2)(table),
        search(2, {"sum": sj.SumProduct(), "mass": sj.AbsSumProduct()})(table),
        search(2, sj.PathCount())(table),
    ):
        with pytest.raises(ValueError, match="by_size orders stories by the sum or the mass"):
            paths.by_size()


def test_told_past_what_is_only_gone_around():
    def f(x, within=""):
        for layer in range(2):
            with jax.named_scope(f"layer_{layer}"):
                with jax.named_scope("attn"):
                    h = 0.1 * jnp.sin(x)
                x = x + h
                with jax.named_scope("mlp"):
                    h = 18 * jnp.tanh(x * 0.1)
                x = x + h
        return x.sum()

    routes = {
        path.route() for path in sj.top_paths(f, 16, distinct="module")(jnp.array([1.0, 2.0, -0.5]))
    }
    routes = {route.partition("[0] → ")[2] for route in routes}
    assert "past layer_0 … layer_1" in routes
    assert "past layer_0 → layer_1 (skips attn) → mlp → layer_1" in routes
    assert "layer_0 (skips attn) → mlp → layer_0 → past layer_1" in routes
    assert "layer_0/attn → layer_0 → mlp → layer_0 → past layer_1" in routes

    def in_one(x):
        with jax.named_scope("block"):
            with jax.named_scope("attn"):
                h = jnp.sin(x)
            return (x + h).sum()

    whole = sj.top_paths(f, 16, distinct=1)(jnp.array([1.0, 2.0, -0.5]))
    assert [path.route() for path in whole] == ["[0] → layer_0 → layer_1"]  # skips or not
    assert whole[0].route(depth=2) == whole[0].route()  # below, its paths differ
    assert not any(any(path.skips) for path in whole)  # some of its paths go through what one skips
    (skip, _) = sj.top_paths(in_one, 2, distinct="module")(jnp.ones(1))
    (best,) = sj.top_paths(in_one)(jnp.ones(1))
    assert skip.skips == best.skips == (True, False)
    (either,) = sj.top_paths(in_one, distinct=lambda node: None)(jnp.ones(1))
    (token,) = sj.top_paths(in_one, distinct="unit", axes={"[0]": ("unit",)})(jnp.ones(1))
    assert any(edge.around for edge in token.edges) and not any(token.skips)
    assert either.skips == (True, False)  # nothing is known of what a function tells
    assert skip.route().endswith("block (skips attn)")
    assert skip.tell() == f"mass 1: {skip.route()} (best path +1)"


# Axes.


IDS = np.array([[3, 0, 2, 2]])


def attention(table, ids=IDS, heads=2):
    """A layer of attention over looked up embeddings, with a residual connection."""
    rng = np.random.default_rng(1)
    with jax.named_scope("embed"):
        x = table[ids]

    def split(x):
        return x.reshape(*x.shape[:-1], heads, -1)

    with jax.named_scope("attention"):
        query, key, value = (split(x @ small_numbers(rng, 4, 4)) for _ in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
        out = mixed.reshape(x.shape) @ small_numbers(rng, 4, 4)
    return (x + out)[0, 1] @ jnp.arange(4.0)


@pytest.mark.parametrize("source", ["embed/gather", None])
def test_tokens_are_known_by_their_embeddings(source):
    table = small_numbers(np.random.default_rng(2), 5, 4)
    found = sj.top_paths(attention, 4, distinct="token", source=source)(table)
    assert {path.story[-1] for path in found} == {1}  # whose output it is
    assert {path.story[0] for path in found} == {0, 1, 2, 3}
    if source is None:  # rows of the table are no tokens
        assert all(path.nodes[0].shape == (5, 4) for path in found)


def test_heads_are_what_queries_and_keys_share():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    mass = sj.semiring_grad(attention, sj.AbsSumProduct())(table).sum()
    found = sj.top_paths(attention, 9, distinct="head")(table)
    assert {path.story for path in found} == {(), (0,), (1,)}
    np.testing.assert_allclose(sum(path.together for path in found), mass, rtol=1e-6)
    by_head = sj.top_paths(attention, 9, distinct="head", through="attention")(table)
    assert {path.story for path in by_head} == {(0,), (1,)}


def test_axes_may_be_named():
    def f(x):
        return jnp.tanh(x @ jnp.ones((3, 2))).sum()

    x = jnp.arange(6.0).reshape(2, 3) / 10
    with pytest.raises(ValueError, match=r"No axis is known as 'token'.*known are: none"):
        sj.top_paths(f, 3, distinct="token")(x)
    found = sj.top_paths(f, 9, distinct="token", axes={"[0]": ("token", None)})(x)
    assert {path.story for path in found} == {(0,), (1,)}
    found = sj.top_paths(f, 9, distinct=("word", "unit"), axes={"[0]": ("word", "unit")})(x)
    assert len(found) == 6  # what the units of a word make has no unit
    with pytest.raises(TypeError, match="axes must be a dict"):
        sj.top_paths(f, 3, distinct="token", axes=("token",))(x)
    with pytest.raises(ValueError, match="No site matches"):
        sj.top_paths(f, 3, distinct="token", axes={"no such": ("token",)})(x)


def test_a_loop_over_tokens_counts_them():
    table = small_numbers(np.random.default_rng(2), 5, 3)

    def f(table):
        def cell(state, x):
            state = jnp.tanh(state + x) * 0.5
            return state, state[0]

        x = table[IDS][0]
        state, outputs = lax.scan(cell, jnp.zeros(3), x)
        return state.sum() + outputs[2]

    found = sj.top_paths(f, 20, distinct="token")(table)
    assert (0, 1, 2) in {path.story for path in found}
    assert (3,) in {path.story for path in found}
    assert all(path.story == tuple(range(path.story[0], path.story[-1] + 1)) for path in found)


def test_axes_in_a_loop_over_layers():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    weights = small_numbers(np.random.default_rng(3), 2, 3, 4, 4)

    def f(table):
        def layer(x, w):
            query, key, value = (jnp.einsum("btd,de->bte", x, each) for each in w)
            query, key, value = (y.reshape(1, 4, 2, 2) for y in (query, key, value))
            scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key))
            return x + jnp.einsum("bhqk,bkhd->bqhd", scores, value).reshape(x.shape), None

        return lax.scan(layer, table[IDS], weights)[0][0, 1, 0]

    by_token = sj.top_paths(f, 20, distinct="token")(table)
    assert {path.story[-1] for path in by_token} == {1}
    by_head = sj.top_paths(f, 20, distinct="head")(table)
    # Hidden unit 0 is one of head 0: it is the last, or the only one.
    assert {path.story for path in by_head} == {(), (0,), (1, 0)}


def test_rows_that_are_picked_are_no_tokens():
    x = small_numbers(np.random.default_rng(2), 5, 4)
    with pytest.raises(ValueError, match="No axis is known as 'token'"):
        sj.top_paths(lambda x: jnp.tanh(x[np.array([0, 2])]).sum(), 3, distinct="token")(x)


def test_drawn_without_being_told_what_axes_count(tmp_path):
    table = small_numbers(np.random.default_rng(2), 5, 4)

    def f(table):
        with jax.named_scope("layer_0"):
            return attention(table)

    words = ["who", "does", "read", "it"]
    paths = sj.top_paths(f, 4, distinct=("token", "head"), source="layer_0/embed/gather")(table)
    paths.plot(words).save(tmp_path / "paths.svg")
    drawn = (tmp_path / "paths.svg").read_text()
    assert "layer 0" in drawn
    assert all(word in drawn for word in words)
    numbered = paths.plot().figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in numbered] == ["0", "1"]  # no path passes others
    with pytest.raises(ValueError, match="No module on the paths has a number"):
        sj.top_paths(attention, 4, source="embed/gather")(table).plot(words)


def test_axes_of_arrays_that_a_loop_reads():
    x = small_numbers(np.random.default_rng(7), 3, 4, 5)

    def f(x):
        def layer(h, row):
            with jax.named_scope("layer"):
                return jnp.tanh(h) * row, h.sum()

        return lax.scan(layer, x.sum((0, 2)), jnp.ones((2, 4)))[0].sum()

    axes = {"[0]": (None, "token", None)}
    found = sj.top_paths(f, 9, distinct="token", source="layer/tanh", axes=axes)(x)
    assert {path.story for path in found} == {(0,), (1,), (2,), (3,)}
    found = sj.top_paths(f, 9, distinct="token", source="layer:input", axes=axes)(x)
    assert {path.story for path in found} == {(0,), (1,), (2,), (3,)}


def test_what_is_said_to_have_no_name_has_none():
    table = small_numbers(np.random.default_rng(2), 4, 4)[None]

    def f(x):
        y = x.reshape(1, 4, 2, 2)
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", y, y))
        return jnp.einsum("bhqk,bkhd->bqhd", scores, y)[0, 1].sum()

    found = sj.top_paths(f, 9, distinct="head", axes={"[0]": (None, "token", None)})(table)
    assert {path.story for path in found} == {(0,), (1,)}


def test_picking_elements_embeds_nothing():
    x = small_numbers(np.random.default_rng(2), 3, 4)

    def f(x):
        logs = jax.nn.log_softmax(x)
        return jnp.take_along_axis(logs, np.array([[1], [0], [2]]), 1).sum()

    with pytest.raises(ValueError, match="No axis is known as 'token'"):
        sj.top_paths(f, 3, distinct="token")(x)


def test_numbers_too_large_to_compare_with_their_signs():
    def f(x):
        with jax.named_scope("a"):
            y = x
            for _ in range(11):
                y = y * 1e30
        with jax.named_scope("b"):
            for _ in range(10):
                y = y * 1e-30
        with jax.named_scope("c"):
            return y + x * 1.0

    best = sj.top_paths(f, distinct="module")(0.5)[0]
    assert best.weight == pytest.approx(1e30)  # though 1e330 is no number
    with pytest.raises(FloatingPointError, match="logarithms"):
        sj.top_paths(f, by="max", distinct="module")(0.5)


def test_stories_are_kept():
    table = small_numbers(np.random.default_rng(2), 5, 4)
    semiring = {"mass": sj.AbsSumProduct(), "max": sj.MaxProduct()}
    level = "module", "token"
    paths = sj.top_paths(attention, 3, distinct=level, semiring=semiring)(table)
    for path in paths:
        read = sj.Path.from_json(path.to_json())
        assert (read.story, read.together) == (path.story, path.together)
        assert (read.level, read.semiring) == (path.level, path.semiring) == (level, read.semiring)
        assert read.tell() == path.tell()
    for together in (math.inf, {"mass": -math.inf, "paths": 2.0}, 3.0):
        path = dataclasses.replace(paths[0], together=together)
        assert sj.Path.from_json(path.to_json()).together == together


def test_told_where_there_is_one_module_or_none():
    def f(x):
        with jax.named_scope("only"):
            return jnp.tanh(x).sum()

    assert "only" in sj.top_paths(f)(jnp.ones(2))[0].tell()
    table = small_numbers(np.random.default_rng(2), 5, 4)

    def unnamed(table):
        y = table[IDS].reshape(1, 4, 2, 2)
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", y, y))
        return jnp.einsum("bhqk,bkhd->bqhd", scores, y)[0, 1, 0, 0]

    told = sj.top_paths(unnamed)(table)[0].tell()
    assert "→ head 0" in told


def test_paths_of_many_stories_are_followed_in_parts(monkeypatch):
    def model(x):
        return jnp.sum(jnp.tanh(x * jnp.arange(1.0, 8.0)) ** 2)

    search = sj.top_paths(model, 7, distinct=everything)
    whole = [(path.weight, path.story) for path in search(jnp.linspace(0.1, 0.9, 7))]
    monkeypatch.setattr("semijax.paths.storytellers.AT_ONCE", 2)
    parts = [(path.weight, path.story) for path in search(jnp.linspace(0.1, 0.9, 7))]
    assert len(whole) == 7 and parts == whole
