"""The LSTM language model: against Flax's cell, and in the searches for paths."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import semijax as sj
from semijax.zoo.language_model import LSTMLanguageModel, next_word_loss
from semijax.zoo.training import train

VOCABULARY, WIDTH, LENGTH = 11, 5, 7
GATES = {"i": "input_gate", "f": "forget_gate", "g": "candidate", "o": "output_gate"}
COMPONENTS = {*GATES.values(), "cell", "hidden", "head", "embedding"}


def new_model(layers=2, seed=0):
    """With biases that are not 0."""
    model = LSTMLanguageModel(VOCABULARY, WIDTH, layers, rngs=nnx.Rngs(seed))
    for layer in model.layers:
        for n, name in enumerate(GATES.values()):
            getattr(layer, name).state.bias[...] = jax.random.normal(jax.random.key(n), WIDTH)
    return model


def draw_tokens(*shape):
    return jax.random.randint(jax.random.key(1), shape, 1, VOCABULARY)


def test_layers_are_flaxs_lstm():
    model = new_model()
    x = model.embedding(draw_tokens(3, LENGTH))
    for layer in model.layers:
        cell = nnx.LSTMCell(WIDTH, WIDTH, rngs=nnx.Rngs(2))
        for letter, name in GATES.items():
            gate, hidden = getattr(layer, name), getattr(cell, f"h{letter}")
            getattr(cell, "if_" if letter == "f" else f"i{letter}").kernel = gate.input.kernel
            hidden.kernel, hidden.bias = gate.state.kernel, gate.state.bias
        x = nnx.RNN(cell)(x)
    np.testing.assert_allclose(model(draw_tokens(3, LENGTH)), model.head(x), rtol=1e-5, atol=1e-6)


def test_leading_axes():
    model, tokens = new_model(), draw_tokens(2, 3, LENGTH)
    logits = model(tokens)
    assert logits.shape == (2, 3, LENGTH, VOCABULARY)
    np.testing.assert_allclose(logits[1, 2], model(tokens[1, 2]), rtol=1e-5, atol=1e-6)


def test_no_position_reads_a_later_one():
    model, tokens = new_model(), draw_tokens(LENGTH)
    changed = model(tokens.at[4].set(0))
    np.testing.assert_array_equal(model(tokens)[:4], changed[:4])
    assert (model(tokens)[4:] != changed[4:]).any(-1).all()


def test_new_parameters_count():
    """What scan has traced with the old ones is not used again."""
    model, other, tokens = new_model(), new_model(seed=5), draw_tokens(LENGTH)
    expected, before = other(tokens), model(tokens)
    nnx.update(model, nnx.state(other))
    np.testing.assert_array_equal(model(tokens), expected)
    assert (before != expected).any()


@pytest.mark.parametrize("size", ["vocabulary", "width", "layers"])
def test_sizes_are_at_least_1(size):
    sizes = {"vocabulary": VOCABULARY, "width": WIDTH, "layers": 1} | {size: 0}
    with pytest.raises(ValueError, match=f"{size} must be an integer of at least 1, got 0"):
        LSTMLanguageModel(**sizes, rngs=nnx.Rngs(0))


def test_the_loss_is_the_mean_surprisal_of_what_follows():
    model = new_model()
    tokens = np.array([[2, 3, 5, 7], [2, 7, 0, 0]])
    logs = jax.nn.log_softmax(model(tokens))
    predicted = [(0, 0, 3), (0, 1, 5), (0, 2, 7), (1, 0, 7)]
    expected = -np.mean([logs[place] for place in predicted])
    np.testing.assert_allclose(next_word_loss(model, tokens), expected, rtol=1e-5)
    longer = np.pad(tokens, ((0, 0), (0, 3)))
    np.testing.assert_allclose(next_word_loss(model, longer), expected, rtol=1e-5)
    other = np.where(tokens == 0, 9, tokens)
    np.testing.assert_allclose(next_word_loss(model, other, padding=9), expected, rtol=1e-5)


def test_it_learns_a_text():
    """Of which each word follows from the one before, but for the first."""
    text = (draw_tokens(101, 1) + np.arange(LENGTH)) % (VOCABULARY - 1) + 1
    model = new_model(layers=1)
    fast = optax.adam(3e-2)
    history = train(model, next_word_loss, text, epochs=20, optimizer=fast, progress=False)
    assert history.losses[-1] < 0.5 * np.log(VOCABULARY - 1) < history.losses[0]


# In the searches for paths.


@functools.cache
def searched():
    """A logit as a function of the embeddings; these; and one of their elements."""
    model = new_model()

    def logit(embedded):
        with sj.scopes(model):
            return model.predict(embedded)[-1, 3]

    return logit, model.embedding(draw_tokens(LENGTH)), (0, (2, 3))


def component(node):
    return next((name for name in node.scope.split("/") if name in COMPONENTS), "(rest)")


def test_all_modules_have_names():
    logit, embedded, _ = searched()
    names = sj.list_sites(logit)(embedded).names
    root = "LSTMLanguageModel/layers"
    for layer in range(2):
        for name in GATES.values():
            for module in (f"{name}/input", f"{name}/state", name):
                assert f"{root}/{layer}/{module}" in names
        assert f"{root}/{layer}/cell/add" in names and f"{root}/{layer}/hidden/tanh" in names
    assert "LSTMLanguageModel/head" in names


def test_the_best_path_is_as_strong_as_the_sweep_says():
    logit, embedded, source = searched()
    (top,) = sj.top_paths(logit, source=source)(embedded)
    strongest = jax.jit(sj.semiring_grad(logit, sj.AbsMaxProduct()))(embedded)
    np.testing.assert_allclose(abs(top.weight), strongest[source[1]], rtol=1e-5)
    assert top.verify() < 1e-4
    assert {component(node) for node in top.nodes[1:]} <= {*COMPONENTS, "(rest)"}
    trace = sj.trace_gradient(logit, source=source)(embedded)
    assert trace.log_abs_weight <= top.log_abs_weight + 1e-6


@pytest.mark.parametrize("name", ["forget_gate", "cell"])
def test_samples_have_as_many_edges_in_a_component_as_the_expectation_says(name):
    logit, embedded, _ = searched()
    samples = sj.sample_paths(logit, 300)(jax.random.key(0), embedded)
    counts = [[component(node) for node in path.nodes[1:]].count(name) for path in samples]
    expectation = sj.Expectation(lambda equation: name in equation.scope.split("/"))
    exact = jax.jit(sj.semiring_grad(logit, expectation, aggregate=(0, 1)))(embedded)
    assert abs(np.mean(counts) - exact) < 4 * np.std(counts) / np.sqrt(len(counts))
    table = sj.component_counts(samples, groups=component, weighted=False)
    (edges,) = (
        n for part, n in zip(table["component"], table["edges"], strict=True) if part == name
    )
    np.testing.assert_allclose(edges, np.mean(counts), rtol=1e-6)


def test_paths_start_at_parameters():
    model, tokens = new_model(), draw_tokens(LENGTH)
    definition, state = nnx.split(model)
    parameters = nnx.to_pure_dict(state)

    def logit(parameters):
        copy = nnx.merge(definition, parameters)
        with sj.scopes(copy):
            return copy(tokens)[-1, 3]

    for group in (*GATES.values(), "embedding", "head"):
        mask = jax.tree_util.tree_map_with_path(
            lambda keys, leaf, group=group: np.full(
                leaf.shape, f"'{group}'" in jax.tree_util.keystr(keys)
            ),
            parameters,
        )
        (path,) = sj.top_paths(logit, source=mask)(parameters)
        assert f"'{group}'" in path.nodes[0].variable
        assert component(path.nodes[1]) == group
