"""What the results look like and carry: tables, shares, winners, frames, pictures."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

X = jnp.array([[0.3, -0.8], [0.5, 0.2], [0.1, 1.2]])


def model(x):
    """Each token goes on by itself, and through what it says to the others."""
    with jax.named_scope("net"):
        with jax.named_scope("keys"):
            keys = jnp.sin(x)
        with jax.named_scope("mix"):
            mixed = keys.sum(0) * x
        x = x + mixed
        with jax.named_scope("head"):
            return (x * jnp.array([1.0, -2.0])).sum()


@pytest.fixture(scope="module")
def flow():
    semirings = {"max": sj.MaxProduct(), "min": sj.MinProduct(), "mass": sj.Entropy()}
    return sj.branch_flow(model, semirings, "[0]")(X)


def test_a_branch_flow_prints_as_a_table(flow):
    lines = str(flow["max"]).splitlines()
    assert lines[0].split() == ["site", "token", "keys", "mix", "add", "winner"]
    assert [line.split()[:2] for line in lines[1:4]] == [["[0]", str(n)] for n in range(3)]
    assert lines[-1] == "MaxProduct(), ⊕ over the last axis, granularity 'element'"
    assert flow["max"]._repr_html_().count("<tr>") == 4
    by_op = sj.branch_flow(model, sj.MaxProduct(), "[0]", granularity="op")(X)
    assert str(by_op).endswith("MaxProduct(), ⊕ over the last axis, granularity 'op'")


def test_shares_are_of_sizes(flow):
    (shares,) = flow["mass"].share().values()
    mass = sj.branch_flow(model, sj.AbsSumProduct(), "[0]")(X)["[0]"]
    total = sum(mass.values())
    for branch, share in shares.items():
        np.testing.assert_allclose(share, mass[branch] / total, rtol=1e-5)
    (largest,) = flow["max"].share().values()
    values = flow["max"]["[0]"]
    np.testing.assert_allclose(sum(largest.values()), 1, rtol=1e-6)
    ratio = np.abs(values["keys"] / values["add"])
    np.testing.assert_allclose(largest["keys"] / largest["add"], ratio, rtol=1e-5)
    with pytest.raises(TypeError, match="Reachability has no shares"):
        sj.branch_flow(model, sj.Reachability(), "[0]")(X).share()


@pytest.mark.parametrize(("name", "pick"), [("max", np.argmax), ("min", np.argmin)])
def test_the_winner_attains_the_best(flow, name, pick):
    values = flow[name]["[0]"]
    best = pick(np.stack([*values.values()]), 0)
    winner = flow[name].winner()["[0]"]
    assert winner.tolist() == [[*values][n] for n in best]
    kept = flow[name].only_winners()["[0]"]
    whole = sj.semiring_grad(model, {"max": sj.MaxProduct(), "min": sj.MinProduct()}, aggregate=-1)
    np.testing.assert_allclose(sum(kept.values()), whole(X)[name], rtol=1e-6)
    assert sum((np.asarray(v) != 0).astype(int) for v in kept.values()).tolist() == [1, 1, 1]


def test_where_there_is_no_path_nobody_wins():
    def first_only(x):
        y = sj.tap(x * 2, "y")
        return jnp.sum(jnp.tanh(y[0]) + jnp.sin(y[0]))

    flow = sj.branch_flow(first_only, sj.MaxProduct(), "y")(X)
    first, *others = flow.winner()["y"]
    assert first in flow["y"] and others == ["", ""]
    shares = np.stack([*flow.share()["y"].values()])
    np.testing.assert_allclose(shares.sum(0), [1, 0, 0])


def test_paths_may_start_at_an_array():
    """As from an argument in its place: no edge more, and nothing from before."""

    def later(keys):
        with jax.named_scope("net"):
            with jax.named_scope("mix"):
                mixed = keys.sum(0) * X
            return ((X + mixed) * jnp.array([1.0, -2.0])).sum()

    semirings = sj.AbsSumProduct(), sj.PathLength(), sj.MaxProduct()
    found = sj.site_flow(model, semirings, "net/mix", source="net/keys")(X)
    expected = sj.site_flow(later, semirings, "net/mix")(jnp.sin(X))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["net/mix"], other["net/mix"], rtol=1e-6)
    flow = sj.component_flow(model, sj.PathCount(), source="net/keys")(X)
    assert "net/keys" not in flow


def test_hidden_units_are_summed_if_told():
    units = sj.site_grads(model, sj.MaxProduct(), "net/keys")(X)["net/keys"]
    flow = sj.branch_flow(model, sj.MaxProduct(), "net/keys", reduce="sum")(X)
    np.testing.assert_allclose(flow["net/keys"]["mix"], units.sum(-1), rtol=1e-6)
    assert flow.provenance["reduce"] == "sum"


def test_results_become_frames(flow):
    frame = flow["max"].to_dataframe()
    assert list(frame) == ["site", "token", "branch", "value", "share", "winner"]
    assert len(frame) == 9 and frame["winner"].sum() == 3
    sites = sj.site_flow(model, sj.AbsSumProduct(), ["net/keys", "net/mix"])(X)
    assert list(sites.to_dataframe()) == ["site", "index", "value"]
    components = sj.component_flow(model, sj.AbsSumProduct())(X).to_dataframe()
    assert list(components) == ["component", "flow", "edges", "share"]
    assert set(components["component"]) == {"net", "net/keys", "net/mix", "net/head"}


def test_results_say_where_they_are_from(flow):
    said = flow["mass"].provenance
    assert said["semiring"] == "Entropy()" and said["granularity"] == "element"
    assert said["jax"] == jax.__version__ and said["semijax"] == sj.__version__
    sites = sj.site_grads(model, sj.AbsMaxProduct(), "net/keys", granularity="op")(X)
    assert sites.provenance["semiring"] == "AbsMaxProduct()"
    assert sites.provenance["granularity"] == "op"


def test_a_semiring_is_called_the_same_in_every_process():
    def feature(equation):
        return 1.0

    said = sj.site_grads(model, sj.Expectation(feature), "net/keys")(X).provenance["semiring"]
    assert "feature" in said and "0x" not in said


def test_results_pass_through_jit_vmap_and_pickle(flow):
    batch = jnp.stack([X, X + 1])
    analysis = sj.branch_flow(model, sj.MaxProduct(), "[0]")
    many = jax.jit(jax.vmap(analysis))(batch)
    for n in range(2):
        one = analysis(batch[n])
        for branch, values in one["[0]"].items():
            np.testing.assert_allclose(many["[0]"][branch][n], values, rtol=1e-6)
        assert (many.winner()["[0]"][n] == one.winner()["[0]"]).all()
    again = pickle.loads(pickle.dumps(jax.device_get(many)))
    np.testing.assert_array_equal(again["[0]"]["add"], many["[0]"]["add"])
    assert str(again) == str(many)
    flows = jax.vmap(sj.site_flow(model, sj.AbsSumProduct(), "net/keys"))(batch)
    expected = sj.site_flow(model, sj.AbsSumProduct(), "net/keys")(batch[1]).share()
    np.testing.assert_allclose(flows.share()["net/keys"][1], expected["net/keys"], rtol=1e-5)
    components = jax.vmap(sj.component_flow(model, sj.AbsSumProduct()))(batch)
    expected = sj.component_flow(model, sj.AbsSumProduct())(batch[1])
    np.testing.assert_allclose(components.share()["net/mix"][1], expected.share()["net/mix"])
    assert "net/mix" in str(components)


def test_results_print_while_they_are_traced():
    @jax.jit
    def analysed(x):
        results = (
            sj.branch_flow(model, sj.MaxProduct(), "[0]")(x),
            sj.site_flow(model, sj.MaxProduct(), "net/keys")(x),
            sj.component_flow(model, sj.MaxProduct())(x),
        )
        assert all("MaxProduct()" in str(result) for result in results)
        return results

    analysed(X)


def test_a_few_numbers_for_each_site_are_printed_as_they_are():
    def doubled(x):
        return jnp.sum(sj.tap(sj.tap(2 * x, "a") * jnp.arange(1.0, 1 + len(x)), "b"))

    mass = sj.AbsSumProduct()
    few = str(sj.site_flow(doubled, mass, ["a", "b"])(jnp.ones(3)))
    assert [line.split() for line in few.splitlines()[:3]] == [
        ["site", "[0]", "[1]", "[2]"],
        ["a", "2", "4", "6"],
        ["b", "2", "4", "6"],
    ]
    one = str(sj.site_flow(doubled, mass, "a", aggregate=0)(jnp.ones(3)))
    assert [line.split() for line in one.splitlines()[:2]] == [["site", "value"], ["a", "12"]]
    named = sj.site_flow(doubled, mass, "a", by="head", axes={"a": ("head",)})(jnp.ones(3))
    assert str(named).split()[:5] == ["site", "head", "0", "head", "1"]
    many = str(sj.site_flow(doubled, mass, "a")(jnp.ones(9)))
    assert many.split()[:7] == ["site", "shape", "min", "mean", "max", "a", "9"]
    large = str(sj.site_flow(lambda x: 1e30 * sj.tap(1e30 * x, "a").sum(), mass, "a")(jnp.ones(2)))
    assert large.splitlines()[1].split() == ["a", "exp(138.2)", "exp(138.2)"]


def test_a_container_of_semirings_is_a_container_of_results():
    several = sj.site_flow(model, (sj.SumProduct(), [sj.TopK(2)]), "net/keys")(X)
    assert isinstance(several, tuple) and isinstance(several[1], list)
    assert several[1][0]["net/keys"].shape == (3, 2, 2)
    components = sj.component_flow(model, {"a": sj.SumProduct(), "b": sj.PathCount()})(X)
    assert set(components) == {"a", "b"}


def test_layers_of_a_loop_are_rows():
    def looped(x):
        def step(x, w):
            with jax.named_scope("layer"):
                return jnp.tanh(x @ w), None

        return jax.lax.scan(step, x, jnp.ones((5, 2, 2)) * 0.3)[0].sum()

    found = sj.site_flow(looped, sj.AbsSumProduct(), ["layer", "[0]"], aggregate=-1)
    flow = found(X)
    assert flow["layer"].shape == (5, 3) and flow.loops == ((False,), (True, False))
    picture = flow.plot(["a", "b", "c"])
    (axes, *_) = picture.figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["[0]", *(f"layer[{n}]" for n in range(5))]
    assert jax.vmap(found)(X[None]).plot().figure is not None  # one example
    with pytest.raises(ValueError, match=r"got shapes \[\(2, 3\), \(2, 5, 3\)\]"):
        jax.vmap(found)(jnp.stack([X, X])).plot()
    whole = sj.site_flow(looped, sj.AbsSumProduct(), "layer", aggregate=(0, -1))(X)
    assert whole.loops == ((False,),) and whole.plot().figure is not None
    of_layers = sj.site_flow(looped, sj.AbsSumProduct(), "layer", aggregate=(1, 2))
    for without_tokens in (of_layers(X), jax.vmap(of_layers)(jnp.stack([X, X]))):
        with pytest.raises(ValueError, match="one number for each"):
            without_tokens.plot()


def test_plots_say_what_they_show(flow):
    one = flow["max"].plot()
    assert "Share of the absolute value of MaxProduct()" in one.caption
    assert "granularity 'element'" in one.caption
    sites = ["net/keys", "net/mix"]
    several = sj.branch_flow(model, sj.AbsSumProduct(), sites)(X).plot()
    labels = [text.get_text() for text in several.figure.axes[0].get_xticklabels()]
    assert labels == ["keys", "mix"]
    mass = sj.site_flow(model, sj.AbsSumProduct(), sites, aggregate=-1)(X)
    assert "Weight" in mass.plot(["a", "b", "c"]).caption
    with pytest.raises(ValueError, match="aggregate the other axes"):
        sj.site_flow(model, sj.AbsSumProduct(), sites)(X).plot()


def test_an_unknown_name_is_a_key_error(flow):
    results = {
        r"'\[0\]'": flow["max"],
        "'net/keys'": sj.site_grads(model, sj.SumProduct(), "net/keys")(X),
        "'net/keys', 'net/mix'": sj.component_flow(model, sj.SumProduct())(X),
    }
    for names, result in results.items():
        with pytest.raises(KeyError, match=f"nothing is called 'x'; there are: {names}"):
            result["x"]
        assert result == result and result != flow and hash(result)


ERRORS = {
    "sites": (ValueError, "No site matches 'nett'. The nearest are 'net'", {"sites": "nett"}),
    "no name": (TypeError, "by its name or a glob, a string, got 3", {"sites": [3]}),
    "no sites": (ValueError, "Expected the name of a site, or a glob, got none", {"sites": []}),
    "granularity": (ValueError, r"must be one of \('element', 'op'\)", {"granularity": "ops"}),
    "no op": (
        TypeError,
        "TopK .* no granularity 'op'",
        {"semiring": sj.TopK(2), "granularity": "op"},
    ),
    "axis": (ValueError, "axis 2 is out of bounds", {"aggregate": 2}),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("analysis", [sj.site_grads, sj.site_flow])
def test_errors(analysis, name):
    error, message, wrong = ERRORS[name]
    options = {"semiring": sj.MaxProduct(), "sites": "net/keys"} | wrong
    with pytest.raises(error, match=message):
        analysis(model, **options)(X)


def test_errors_of_branches():
    def flow(**options):
        return sj.branch_flow(model, sj.MaxProduct(), "[0]", **options)(X)

    with pytest.raises(ValueError, match=r"No consumer matches '\*/query'. The nearest are"):
        flow(branches={"query": "*/query"})
    with pytest.raises(ValueError, match="reduce must be 'oplus' or 'sum', got 'max'"):
        flow(reduce="max")
    with pytest.raises(TypeError, match="branches must be a mapping"):
        flow(branches=["*/query"])
    with pytest.raises(TypeError, match="Gradient only defined for scalar-output functions"):
        sj.branch_flow(jnp.sin, sj.MaxProduct(), "sin")(X)
    with pytest.raises(ValueError, match="depth must be an integer of at least 1"):
        sj.component_flow(model, sj.MaxProduct(), 0)
    with pytest.raises(TypeError, match="component_flow requires real-valued inputs"):
        sj.component_flow(model, sj.MaxProduct())(np.arange(3))


def test_a_study_of_branches_carries_their_provenance(tmp_path):
    def analysis(batch, mask):
        flow = sj.branch_flow(model, sj.AbsSumProduct(), "[0]")
        return flow(jnp.where(mask[:, None], batch, 0))

    def values(flow, batch):
        return flow["[0]"]

    batches = [np.tile(X, (n, 1)) for n in (1, 2, 3, 1)]
    study = sj.run_study(analysis, batches, reducers={"flow": values}, pad=0, progress=False)
    assert study.provenance["semiring"] == "AbsSumProduct()"
    assert study.provenance["granularity"] == "element" and study.provenance["compiled"] == 2
    exact = [values(analysis(b, np.ones(len(b), bool)), b)["add"] for b in batches]
    assert study["flow/add"]["all"].count == sum(map(len, batches))
    np.testing.assert_allclose(
        study["flow/add"]["all"].mean, np.concatenate(exact).mean(), rtol=1e-6
    )
    study.save(tmp_path / "study.json")
    assert sj.Study.load(tmp_path / "study.json") == study
