"""The data of the explorer's page are the paths' own, and the page holds them."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

IDS, WORDS = np.array([3, 0, 2]), ["the", "<b>", "\u2028</script>"]
HEADS = 2


def attend(x, weights):
    with jax.named_scope("attention"):
        query, key, value = ((x @ w).reshape(len(x), HEADS, -1) for w in weights[:3])
        scores = jnp.tanh(jnp.einsum("qhd,khd->hqk", query, key))
        mixed = jnp.einsum("hqk,khd->qhd", scores, value)
        return mixed.reshape(x.shape) @ weights[3]


def model(width, layers=1):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(5, width)).round(1))
    weights = jnp.asarray(rng.normal(size=(layers, 5, width, width)).round(1))

    def score(ids):
        with jax.named_scope("net/embed"):
            x = table[ids]
        for layer, own in enumerate(weights):
            with jax.named_scope(f"net/layer_{layer}"):
                x = x + attend(x, own)
                with jax.named_scope("mlp"):
                    y = jnp.tanh(x @ own[4])
                x = x + y
        with jax.named_scope("net/head"):
            return x[-1] @ jnp.arange(1.0, width + 1)

    return score


SCORE = model(width=2)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def explored(**options):
    found = sj.explorer(SCORE, source="*embed/*", **options)(IDS)
    return found, json.loads(found.to_json(WORDS))


def test_rows_are_modules_each_visit_apart():
    found, data = explored()
    assert [row["name"] for row in data["rows"]] == [
        "embed/gather",
        "layer_0/attention",
        "layer_0 + attention",
        "layer_0/mlp",
        "layer_0 + mlp",
        "head",
    ]
    assert [row["group"] for row in data["rows"]] == [None, *["layer_0"] * 4, None]
    assert data["columns"] == WORDS and found.tokens == 3
    whole = sj.explorer(SCORE, source="*embed/*", depth=1)(IDS)
    assert [row["name"] for row in json.loads(whole.to_json())["rows"]] == [
        "net/embed/gather",
        "net",
    ]
    told = {story["told"] for story in json.loads(whole.to_json())["stories"]}
    level = {"distinct": (1, "token"), "source": "*embed/*"}
    assert told == {path.route() for path in sj.top_paths(SCORE, 20, **level)(IDS)}


def test_edges_are_what_all_paths_have_in_common():
    semirings = sj.AbsSumProduct(), sj.SumProduct(), sj.AbsMaxProduct(), sj.PathCount()
    _, data = explored(semirings=semirings)
    paths = sj.top_paths(SCORE, 5000, source="*embed/*")(IDS)
    assert len(paths) < 5000
    nodes = data["nodes"]
    number = {
        (data["rows"][row]["name"], token): n
        for n, (row, token) in enumerate(zip(nodes["row"], nodes["column"], strict=True))
    }

    def cell(node, seen):
        if not node.primitive:
            return "embed/gather", node.along("token")
        name = node.scope.removeprefix("net/")
        if name == "layer_0":
            name += " + mlp" if "layer_0/mlp" in seen or "layer_0 + attention" in seen else ""
            name += "" if "mlp" in name else " + attention"
        token = node.along("token")
        return name, -1 if token is None else token

    crossing, starting, told = {}, {}, set()
    for path in paths:
        visited = []
        for node in path.nodes:
            visited.append(cell(node, [name for name, _ in visited]))
        ends = [number[each] for each, _ in itertools.groupby(visited)]
        told.add(tuple(ends))
        starting.setdefault(nodes["column"][ends[0]], []).append(path.weight)
        for pair in itertools.pairwise(ends):
            crossing.setdefault(pair, []).append(path.weight)
    edges = data["edges"]
    pairs = list(zip(edges["tail"], edges["head"], strict=True))
    assert set(pairs) == crossing.keys() and len(pairs) == len(crossing)
    mass, whole = [*edges["weights"]], math.fsum(abs(path.weight) for path in paths)
    for n, pair in enumerate(pairs):
        own = crossing[pair]
        wanted = [
            math.fsum(map(abs, own)) / whole,
            math.fsum(own),
            max(map(abs, own)),
            math.log(sum(weight != 0 for weight in own)),
        ]
        assert [reading[n] for reading in mass] == pytest.approx(wanted, rel=1e-3, abs=1e-9)
    strip = data["sources"]["through"]
    assert strip[0] == pytest.approx(
        [math.fsum(map(abs, starting[n])) / whole for n in range(3)], rel=1e-3
    )
    assert strip[1] == pytest.approx([math.fsum(starting[n]) for n in range(3)], rel=1e-3)
    assert {tuple(story["nodes"]) for story in data["stories"]} <= told
    assert len(data["stories"]) == min(20, len(told))
    assert data["edges"]["shown"] == pytest.approx([1, 1, 1, 1])
    assert [r["shares"] for r in data["readings"]] == [True, False, False, False]
    assert [r["signed"] for r in data["readings"]] == [False, True, False, False]


def test_heads():
    """Rows with heads are those of the modules; what flows is what flows there by head."""
    score = model(width=4, layers=2)
    data = json.loads(sj.explorer(score, source="*embed/*")(IDS).to_json())
    heads = data["heads"]
    assert heads["rows"] == ["layer_0/attention", "layer_1/attention"]
    assert heads["count"] == HEADS
    flow = sj.site_flow(
        score, sj.AbsSumProduct(), "*/attention/transpose", source="*embed/*", by="head"
    )(IDS)
    masses = sj.site_grads(score, sj.AbsSumProduct(), "*embed/gather")(IDS)
    whole = float(masses["net/embed/gather"].sum())
    for row, by_head in zip(heads["values"][0], flow.values(), strict=True):
        assert row == pytest.approx([float(mass) / whole for mass in by_head], rel=1e-3)


def test_what_is_known_of_a_node():
    _, data = explored()
    nodes = data["nodes"]
    first = nodes["row"].index(0)
    token = nodes["column"][first]
    row = np.asarray(sj.site_values(SCORE, "*embed/*")(IDS)["net/embed/gather"])[token]
    assert nodes["value"][first] == pytest.approx(np.sqrt((row**2).mean()), rel=1e-3)
    at = nodes["row"].index(1)
    assert nodes["scope"][at] == "net/layer_0/attention"
    assert "test_explorer.py" in nodes["line"][at]


def test_the_page_holds_the_data_and_runs_none_of_it(tmp_path):
    found, data = explored()
    page = found.to_html(WORDS)
    before, _, rest = page.partition('id="data">')
    text, _, _ = rest.partition("</script>")
    assert before and json.loads(text) == data
    assert "<b>" not in text
    found.save(tmp_path / "page.html", WORDS)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    found.save(tmp_path / "page.json")
    assert json.loads((tmp_path / "page.json").read_text())["columns"] == ["0", "1", "2"]
    assert "iframe" in found._repr_html_()
    with pytest.raises(ValueError, match=r"\.html, \.json"):
        found.save(tmp_path / "page.svg")
    with pytest.raises(ValueError, match="tokens has 1 texts for 3 tokens"):
        found.to_json(["one"])


def test_without_tokens_modules_are_one_column():
    def f(x):
        with jax.named_scope("layer"):
            return jnp.tanh(x).sum()

    data = json.loads(sj.explorer(f)(jnp.ones(3)).to_json())
    assert data["columns"] == [""] and data["nodes"]["column"] == [-1, -1]
    assert data["sources"] is None and data["heads"] is None
    stated = sj.explorer(f, axes={"[0]": ("token",)})(jnp.ones(3))
    assert stated.tokens == 3


def test_a_budget_of_edges_is_shared_by_the_readings():
    _, data = explored(max_edges=6)
    assert len(data["edges"]["tail"]) <= 6 and max(data["edges"]["shown"]) < 1
    _, data = explored(max_edges=1)
    assert len(data["edges"]["tail"]) >= 1
    _, data = explored(share=0.5)
    assert min(data["edges"]["shown"]) >= 0.5 and max(data["edges"]["shown"]) < 1


def test_a_difference_between_two_runs():
    other = np.array([3, 1, 2])
    found, data = explored(weighting=sj.Contrast(other))
    assert [r["name"] for r in data["readings"]] == ["sum", "mass", "strongest"]
    total = data["readings"][0]["total"]
    assert total == pytest.approx(float(SCORE(IDS) - SCORE(other)), rel=1e-3)
    through = data["sources"]["through"][0]
    assert through[0] == through[2] == 0 and through[1] == pytest.approx(total, rel=1e-3)
    assert " of " in found.stories.tell()


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"share must be a number in \(0, 1\]"):
        sj.explorer(jnp.sum, share=0)
    with pytest.raises(TypeError, match=r"share must be a number in \(0, 1\], got 'a'"):
        sj.explorer(jnp.sum, share="a")
    with pytest.raises(ValueError, match="max_edges"):
        sj.explorer(jnp.sum, max_edges=0)
    with pytest.raises(TypeError, match="semiring"):
        sj.explorer(jnp.sum, semirings="mass")
    with pytest.raises(TypeError, match=r"TopK\(k=2\) reads out several"):
        sj.explorer(jnp.sum, semirings=sj.TopK(2))(jnp.ones(2))
    with pytest.raises(ValueError, match="There is nothing to explore: no path leads"):
        sj.explorer(lambda x: jax.lax.stop_gradient(x).sum())(jnp.ones(2))
    with pytest.raises(FloatingPointError, match="that of 'sqrt'"):
        sj.explorer(lambda x: jnp.sqrt(x).sum())(jnp.zeros(2))
    with pytest.raises(jax.errors.ConcretizationTypeError, match="explorer returns Python objects"):
        jax.jit(lambda x: sj.explorer(jnp.sum)(x) and 0)(jnp.ones(2))


def test_readings_have_names():
    _, data = explored()
    assert [r["name"] for r in data["readings"]] == ["mass", "strongest"]
    _, data = explored(semirings=(sj.Entropy(), sj.MaxProduct()))
    assert [r["name"] for r in data["readings"]] == ["Entropy", "MaxProduct", "mass"]
    _, data = explored(semirings={"spread": sj.Entropy(), "all": sj.AbsSumProduct()})
    assert [r["name"] for r in data["readings"]] == ["spread", "mass"]
    assert [r["shares"] for r in data["readings"]] == [False, True]
    with pytest.raises(ValueError, match=r"give SumProduct\(\) another name"):
        sj.explorer(jnp.sum, semirings={"mass": sj.SumProduct()})


def test_stories_know_what_all_their_paths_have():
    """In each reading; the shares of the mass in logarithms, which do not overflow."""
    _, data = explored(semirings={"sum": sj.SumProduct(), "strongest": sj.AbsMaxProduct()}, k=500)
    names = [r["name"] for r in data["readings"]]
    sums, best, shares = zip(*(story["together"] for story in data["stories"]), strict=True)
    assert names == ["sum", "strongest", "mass"]
    assert math.fsum(shares) == pytest.approx(1, rel=1e-2)
    assert math.fsum(sums) == pytest.approx(data["readings"][0]["total"], rel=1e-2)
    assert best == pytest.approx([abs(story["score"]) for story in data["stories"]], rel=1e-3)

    def huge(x):
        return jax.lax.fori_loop(0, 200, lambda _, c: c * 1e5 + c, x)

    data = json.loads(sj.explorer(huge, semirings=sj.PathCount())(1.0).to_json())
    assert [story["together"][1] for story in data["stories"]] == [1.0]
    nothing = json.loads(sj.explorer(lambda x: (0 * x).sum())(jnp.ones(3)).to_json())
    assert all(story["together"][0] == 0 for story in nothing["stories"])


def test_nothing_flows_where_attention_is_frozen():
    def score(ids):
        table = jnp.arange(20.0).reshape(5, 4) / 10
        with jax.named_scope("embed"):
            x = table[ids]
        q = x.reshape(3, HEADS, 2)
        pattern = sj.tap(jnp.tanh(jnp.einsum("qhd,khd->hqk", q, q)), "pattern")
        mixed = jnp.einsum("hqk,khd->qhd", pattern, q)
        return jnp.tanh(mixed).sum()

    for function in (score, sj.freeze(score, "pattern")):
        data = json.loads(sj.explorer(function, source="embed/*")(IDS).to_json())
        assert data["heads"]["count"] == HEADS


def test_the_value_of_one_token():
    """Other axes may be as long as that of the tokens."""

    def f(ids):
        x = jnp.arange(8.0).reshape(2, 4)[ids].reshape(1, HEADS, 2)
        with jax.named_scope("attention"):
            scores = jnp.einsum("thd,shd->hts", x, x)
            mixed = jnp.einsum("hts,shd->htd", scores, x)
        return mixed.sum()

    data = json.loads(sj.explorer(f, source="*gather*")(np.array([1])).to_json())
    nodes, x = data["nodes"], np.arange(4.0, 8.0).reshape(HEADS, 2)
    mixed = np.einsum("hd,hd->h", x, x)[:, None] * x
    at = nodes["scope"].index("attention")
    assert nodes["column"][at] == 0
    assert nodes["value"][at] == pytest.approx(np.sqrt((mixed**2).mean()), rel=1e-3)
