"""Gradient tracing over seeds: the language, the measures, and a small grid."""

import jax
import numpy as np
import pandas
import pytest

import semijax as sj
from semijax.experiments import tracing


@pytest.fixture(scope="module")
def params():
    return tracing.parameters(tracing.untrained_model(0))


def test_the_keys_to_the_cabinet_are_in_the_language():
    inputs = tracing.prefix(["the", "keys", "to", "the", "cabinet"], "are", "is")
    assert inputs.tokens.shape == (6,) and inputs.right != inputs.wrong
    assert len({*np.asarray(inputs.tokens).tolist(), int(inputs.right), int(inputs.wrong)}) == 7


def test_sentences_have_the_length_asked_for():
    for length in tracing.LENGTHS:
        found = tracing.sentences(length, 3)
        assert [one.verb for one in found] == [length] * 3
        assert all(one.attractors for one in found)


def test_the_greedy_trace_is_never_stronger_than_the_best_path(params):
    (sentence,) = tracing.sentences(5, 1)
    greedy, best = tracing.greedy_and_best(params, sentence)
    assert abs(greedy.weight) <= abs(best.weight) * (1 + 1e-6)
    inputs = tracing.prefix_of(sentence)
    _, (word, unit) = tracing.strongest_unit(params, inputs, sentence.subject)
    gradient = jax.grad(tracing.margin)(params, *inputs)["embedding"]["embedding"][word]
    assert np.abs(gradient).max() == abs(gradient[unit])
    for path in (greedy, best):
        assert path.nodes[0].index == (word, unit)
        assert tracing.component(path.nodes[1]) == "embedding"
        story = tracing.story(path, sentence.words)
        assert story.startswith(f"embedding ({sentence.words[sentence.subject]})")


def test_a_grid_goes_on(tmp_path):
    options = {"texts": 64, "epochs": 1, "examined": 2, "progress": False}
    table = tracing.grid([0], tmp_path, **options)
    pandas.testing.assert_frame_equal(table, tracing.grid([0], tmp_path, **options))
    assert set(table["model"]) == {"trained", "untrained"} and not table["value"].isna().any()
    values = table.set_index(["model", "measure", "part"])["value"].sort_index()
    for model in ("trained", "untrained"):
        of_mass = [values[model, f"mass {k}"].item() for k in tracing.BEST]
        assert 0 < of_mass[0] <= of_mass[1] <= of_mass[2] <= 1 + 1e-6
        assert values[model, "edges of head", "head"].item() >= 1
        assert 0 <= values[model, "found", "5 words"].item() <= 1


def test_the_mass_of_the_best_paths_is_that_of_all_where_they_are_few():
    """On a model of one word, whose paths can be listed."""
    params = tracing.parameters(tracing.untrained_model(1))
    inputs = tracing.prefix(["the"], "are", "is")
    source = tracing.strongest_unit(params, inputs, 0)
    sums = tracing._sums(params, *inputs)
    mass = float(sums["mass"]["embedding"]["embedding"][source[1]])
    paths = sj.top_paths(tracing.margin, k=5000, source=source)(params, *inputs)
    assert sum(abs(path.weight) for path in paths) <= mass * (1 + 1e-5)
