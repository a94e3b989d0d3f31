"""The benchmark of known mechanisms: its models, effects, methods and measures against oracles."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semijax.experiments.circuits import (
    __main__,
    baselines,
    benchmark,
    flows,
    handset,
    measures,
    patching,
    summary,
    tasks,
    trained,
)
from semijax.experiments.circuits.model import EPSILON, Weights, Wiring, run

from ..compilation import quick_jit

SMALL = Wiring(layers=2, heads=2, mlp=True, norm=True)
LINEAR = Wiring(layers=2, heads=2)


def random_weights(wiring, seed=0, width=7, head_width=3, hidden=5):
    """Weights of a transformer that does nothing in particular."""
    rng = np.random.default_rng(seed)
    layers, heads, hidden = wiring.layers, wiring.heads, hidden * wiring.mlp
    shapes = Weights(
        token=(tasks.VOCABULARY, width),
        position=(tasks.LENGTH, width),
        query=(layers, heads, width, head_width),
        key=(layers, heads, width, head_width),
        value=(layers, heads, width, head_width),
        query_bias=(layers, heads, head_width),
        out=(layers, heads, head_width, width),
        up=(layers, width, hidden),
        up_bias=(layers, hidden),
        down=(layers, hidden, width),
        down_bias=(layers, width),
        unembed=(width, tasks.VOCABULARY),
    )
    return Weights(*(jnp.asarray(0.6 * rng.standard_normal(s), jnp.float32) for s in shapes))


def some_pairs(count=3, seed=0):
    return tasks.INDUCTION.pairs(np.random.default_rng(seed), count)


def rerun(wiring, weights, prompt, other=None, edge=None):
    """The plain loop over layers and heads: logits and what is written, one edge replaced."""
    w = Weights(*(np.asarray(array, np.float64) for array in weights))
    written = {"token": w.token[prompt.tokens], "position": w.position[prompt.positions]}

    def read(reader):
        x = sum(other[n] if edge == (n, reader) else out for n, out in written.items())
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) if wiring.norm else x

    for layer in range(wiring.layers):
        found = {}
        for head in range(wiring.heads):
            at = layer, head
            query = read(f"{layer}.{head}.query") @ w.query[at] + w.query_bias[at]
            key, value = (
                read(f"{layer}.{head}.{name}") @ getattr(w, name)[at] for name in ("key", "value")
            )
            scores = query @ key.T / np.sqrt(key.shape[-1])
            pattern = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            found[f"{layer}.{head}"] = pattern @ value @ w.out[at]
        written |= found
        if wiring.mlp:
            hidden = np.maximum(read(f"{layer}.mlp") @ w.up[layer] + w.up_bias[layer], 0)
            written[f"{layer}.mlp"] = hidden @ w.down[layer] + w.down_bias[layer]
    return read("logits")[-1] @ w.unembed, written


def one(pairs, n=0):
    return jax.tree.map(lambda leaf: np.asarray(leaf[n]), pairs)


@pytest.mark.parametrize(
    "task", [*(m.task for m in handset.MECHANISMS), *trained.TASKS], ids=lambda task: task.name
)
def test_pairs_differ_in_all_that_can_differ(task):
    pairs = task.pairs(np.random.default_rng(0), 20)
    clean, other = pairs.clean, pairs.corrupted
    assert (clean.tokens[:, :-1] != other.tokens[:, :-1]).all()
    assert (clean.positions[:, :-1] != other.positions[:, :-1]).all()
    assert (clean.positions[:, -1] == tasks.LENGTH - 1).all()
    assert (pairs.right != pairs.wrong).all()
    if task is not tasks.FIRST_AGAIN:
        assert (clean.tokens[pairs.told_at] == pairs.right).all()


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("mechanism", handset.MECHANISMS, ids=lambda m: m.task.name)
def test_handset_models_do_their_tasks_and_patching_finds_their_mechanisms(mechanism, aligned):
    for seed in range(3):
        model = benchmark.handset_model(mechanism, seed, aligned)
        assert benchmark.accuracy(model, 200) == 1.0
        writers, edges = model.truth
        pairs = mechanism.task.pairs(np.random.default_rng(seed), 5)
        effects = patching.noising(model.wiring, model.weights, pairs)
        for found, truth in zip(effects, (edges[model.wiring.edges], writers), strict=True):
            assert measures.auroc(np.abs(found.mean(0)), truth) == 1.0
    assert edges.sum() == len(mechanism.edges)


def test_edge_effects_are_those_of_running_again_edge_by_edge():
    weights, pairs = random_weights(SMALL), some_pairs(2)
    effects = patching.noising(SMALL, weights, pairs)
    for n in range(2):
        pair = one(pairs, n)
        _, other = rerun(SMALL, weights, pair.corrupted)
        logits, written = rerun(SMALL, weights, pair.clean)
        whole = patching.preference(logits, pair)
        lost = [
            whole - patching.preference(rerun(SMALL, weights, pair.clean, other, edge)[0], pair)
            for edge in (tuple(name.split("→")) for name in SMALL.edge_names)
        ]
        np.testing.assert_allclose(effects.edges[n], lost, atol=3e-5)
        found = run(SMALL, weights, pair.clean)
        np.testing.assert_allclose(found.written, np.stack([*written.values()]), atol=1e-5)


def test_restoring_is_corrupting_the_other_way_round():
    weights, pairs = random_weights(SMALL), some_pairs(1)
    pair = one(pairs)
    (logits, _), (_, other) = (
        rerun(SMALL, weights, prompt) for prompt in (pair.corrupted, pair.clean)
    )
    edge = "position", "1.0.key"
    restored, _ = rerun(SMALL, weights, pair.corrupted, other, edge)
    gain = patching.preference(restored, pair) - patching.preference(logits, pair)
    at = SMALL.edge_names.index("→".join(edge))
    effects = patching.denoising(SMALL, weights, pairs)
    np.testing.assert_allclose(effects.edges[0, at], gain, atol=3e-5)


def test_circuits_of_all_edges_and_of_none_are_the_two_runs():
    weights, pairs = random_weights(SMALL), some_pairs(1)
    pair = one(pairs)
    circuits = jnp.asarray(np.stack([SMALL.edges, np.zeros_like(SMALL.edges)]))
    found = patching.circuit_preferences(SMALL, weights, pairs, circuits)[0]
    runs = [rerun(SMALL, weights, prompt)[0] for prompt in (pair.clean, pair.corrupted)]
    expected = [patching.preference(logits, pair) for logits in runs]
    np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.fixture(scope="module")
def linear():
    """A transformer that is linear in each edge: its attention does not depend on the prompt."""
    weights = random_weights(LINEAR)
    weights = weights._replace(query=jnp.zeros_like(weights.query))
    weights = weights._replace(query_bias=jnp.zeros_like(weights.query_bias))
    pairs = some_pairs(1)
    return weights, one(pairs), patching.noising(LINEAR, weights, pairs)


@pytest.mark.parametrize("name", ["attribution patching (EAP)", "EAP-IG", "integrated gradients"])
def test_first_order_methods_are_exact_on_a_linear_model(linear, name):
    weights, pair, effects = linear
    found = baselines.METHODS[name](LINEAR, weights, pair)
    np.testing.assert_allclose(found.writers, effects.writers[0], atol=2e-5)
    if name != "integrated gradients":
        np.testing.assert_allclose(found.edges[LINEAR.edges], effects.edges[0], atol=2e-5)


def test_contrast_is_exact_on_a_linear_model(linear):
    weights, pair, effects = linear
    found = quick_jit(lambda w, p: flows.scores(LINEAR, w, p, "Contrast", True)["sum"])(
        weights, pair
    )
    np.testing.assert_allclose(found.edges[LINEAR.edges], effects.edges[0], atol=2e-5)
    np.testing.assert_allclose(found.writers, effects.writers[0], atol=2e-5)


def test_paths_divide_the_difference_the_mass_and_the_entropy_among_themselves():
    weights, pair = random_weights(SMALL), one(some_pairs())
    found = quick_jit(lambda w, p: flows.scores(SMALL, w, p, "Contrast", False))(weights, pair)
    clean, other = (
        patching.preference(rerun(SMALL, weights, prompt)[0], pair)
        for prompt in (pair.clean, pair.corrupted)
    )
    for name, whole in (("sum", clean - other), ("mass", 1.0), ("entropy share", 1.0)):
        # Every path has one edge into the logits, and all start at the embeddings.
        np.testing.assert_allclose(found[name].edges[:, -1].sum(), whole, rtol=1e-3, err_msg=name)
        if name != "entropy share":
            np.testing.assert_allclose(found[name].writers[:2].sum(), whole, rtol=1e-3)
    best = found["strongest path"]
    np.testing.assert_allclose(best.edges[:, -1].max(), best.writers[:2].max(), rtol=1e-4)
    assert (found["top 8"].edges[SMALL.edges] >= best.edges[SMALL.edges] * 0.9999).all()


def test_gradients_at_edges_are_those_of_finite_differences():
    weights, pair = random_weights(SMALL), one(some_pairs())
    scores = baselines.gradient_times_activation(SMALL, weights, pair)
    clean, written = rerun(SMALL, weights, pair.clean)
    step = 1e-4
    for edge in (("token", "0.1.key"), ("0.0", "1.mlp"), ("1.mlp", "logits")):
        less = {name: (1 - step) * array for name, array in written.items()}
        logits, _ = rerun(SMALL, weights, pair.clean, less, edge)
        slope = patching.preference(clean - logits, pair) / step
        at = SMALL.writers.index(edge[0]), SMALL.readers.index(edge[1])
        np.testing.assert_allclose(scores.edges[at], slope, rtol=2e-3, atol=1e-4)


def test_rollout_of_one_layer_is_attention_to_where_the_answer_is():
    wiring = Wiring(1, 2)
    weights, pair = random_weights(wiring), one(some_pairs())
    found = baselines.attention_rollout(wiring, weights, pair)
    patterns = run(wiring, weights, pair.clean).patterns[0]
    np.testing.assert_allclose(
        found.writers[2:], patterns[:, -1] @ pair.told_at.astype(float) / 4, rtol=1e-6
    )
    assert np.isnan(found.writers[:2]).all() and np.isnan(found.edges).all()


def test_information_flow_is_shared_out_to_the_writers():
    weights, pair = random_weights(SMALL), one(some_pairs())
    found = baselines.information_flow_routes(SMALL, weights, pair)
    assert (found.edges >= 0).all() and (found.edges[~SMALL.edges] == 0).all()
    np.testing.assert_allclose(found.edges.sum(0), 1, rtol=1e-5)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 4, 23).astype(float), rng.random(23) < 0.4
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(scores[truth], scores[~truth])]
    np.testing.assert_allclose(measures.auroc(scores, truth), np.mean(wins))
    assert np.isnan(measures.auroc(scores, np.zeros(23, bool)))


def test_areas_by_hand():
    # Nothing up to a fifth of all edges, all from half of them on.
    faithfulness = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1.0])
    np.testing.assert_allclose(measures.area_under(faithfulness), 0.3 / 2 + 0.5)
    np.testing.assert_allclose(measures.distance_from_1(faithfulness), 0.199 + 0.3 / 2)
    np.testing.assert_allclose(measures.area_under(np.ones(10)), 0.999)
    # Too much is as far from the model as too little.
    np.testing.assert_allclose(measures.distance_from_1(2 - faithfulness), 0.199 + 0.3 / 2)


def test_largest_are_chosen_and_ties_broken_at_random():
    chosen = measures.largest(np.arange(200.0), np.random.default_rng(0))
    assert chosen.sum(1).tolist() == [0, 0, 1, 2, 4, 10, 20, 40, 100, 200]
    assert chosen[3].nonzero()[0].tolist() == [198, 199]
    draws = [measures.largest(np.ones(200), np.random.default_rng(n))[2] for n in range(9)]
    assert len({int(d.argmax()) for d in draws}) > 1


def test_training_lowers_the_loss():
    task = tasks.FIRST_AGAIN
    weights = trained.train(task, [3], steps=trained.CHUNK)
    examples = task.sample(np.random.default_rng(0), 500)

    def loss(weights):
        found = jax.nn.log_softmax(trained.logits(weights, jnp.asarray(examples.tokens)))
        return -np.asarray(found)[np.arange(500), examples.answers].mean()

    assert loss(jax.tree.map(lambda leaf: leaf[0], weights)) < 1 < loss(trained.untrained(3))


def in_order(wiring):
    """The later a component, the higher its score."""
    edges = np.arange(wiring.edges.size).reshape(wiring.edges.shape)
    return baselines.Scores(edges, edges[:, 0])


def test_the_command_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    few = {name: baselines.METHODS[name] for name in ("|grad|", "attention rollout")}
    monkeypatch.setattr(baselines, "METHODS", few)
    monkeypatch.setattr(flows, "WEIGHTINGS", ("Derivative",))
    monkeypatch.setattr(benchmark, "_flow", lambda wiring, *_: {"mass": in_order(wiring)})
    command = ["--out", str(tmp_path), "--models", "copy first, by hand", "--seeds"]
    __main__.main([*command, "0"])
    first = (tmp_path / benchmark.FILE).read_text()
    monkeypatch.setattr(benchmark, "score", lambda *_: pytest.fail("examined again"))
    __main__.main([*command, "0"])
    assert (tmp_path / benchmark.FILE).read_text() == first
    monkeypatch.undo()
    table = benchmark.read(tmp_path)
    assert table.set_index("method")["edge_auroc"]["patching"] == 1.0
    assert np.isnan(table.set_index("method")["cpr"]["attention rollout"])
    with pytest.raises(SystemExit):
        __main__.main(["--out", str(tmp_path), "--models", "nothing"])
    assert "no model is called 'nothing'" in capsys.readouterr().err


def test_the_contest_names_the_better_one_or_a_tie():
    import pandas

    rows = [
        {"model": "m", "seed": seed, "method": method, **dict.fromkeys(benchmark.MEASURES, value)}
        for method, values in {
            "patching": (1, 1, 1),
            "random": (9, 9, 9),
            "EAP": (0.5, 0.6, 0.7),
            "Contrast · sum": (0.8, 0.9, 1.1),
        }.items()
        for seed, value in enumerate(values)
    ]
    found = summary.contest(pandas.DataFrame(rows)).set_index("measure")
    assert found["verdict"]["edge_auroc"] == "ours" and found["verdict"]["cmd"] == "others"
    np.testing.assert_allclose(found["lead"]["edge_auroc"], 1 / 3)
    np.testing.assert_allclose(found["half"]["edge_auroc"], 4.302653 * 0.1 / 3)
    rows[-1] |= dict.fromkeys(benchmark.MEASURES, 0.2)
    assert (summary.contest(pandas.DataFrame(rows))["verdict"] == "tie").all()


def test_the_contest_leaves_out_seeds_without_a_number():
    import pandas

    values = {"EAP": (0.5, 0.6, 0.7, 0.5), "Contrast · sum": (0.5, 0.7, 0.65, np.nan)}
    rows = [
        {"model": "m", "seed": seed, "method": method, **dict.fromkeys(benchmark.MEASURES, value)}
        for method, own in values.items()
        for seed, value in enumerate(own)
    ]
    found = summary.contest(pandas.DataFrame(rows)).set_index("measure").loc["edge_auroc"]
    assert found["verdict"] == "tie"
    np.testing.assert_allclose(found["p"], 0.741801, rtol=1e-4)  # of 0, 0.1 and -0.05
