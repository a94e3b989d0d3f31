"""Fig. 6a and 7: the summaries of made-up entropies, the controls, and a small grid."""

import jax
import numpy as np
import pandas
import pytest
from flax import nnx

from semijax import zoo
from semijax.experiments import entropy, generated
from semijax.experiments.controls import MODELS, controls


def sentences_with(entropy, attractors, tokens):
    n = len(entropy)
    return pandas.DataFrame(
        {
            "entropy": entropy,
            "attractors": attractors,
            "tokens": tokens,
            "kind": ["copula", "transitive"] * (n // 2),
            "form": ["is", "sees"] * (n // 2),
        }
    )


def test_a_summary_of_entropies_that_grow_with_the_length():
    rng = np.random.default_rng(0)
    tokens = rng.integers(8, 20, 400)
    drawn = sentences_with(100 + 0.5 * tokens, rng.integers(1, 5, 400), tokens)
    paired = sentences_with(
        np.repeat([3.0, 3.5, 4.0, 3.0, 1.0], 6), np.repeat(range(5), 6), [9] * 30
    )
    found = entropy.summary(drawn, paired)
    assert found["slope"] == pytest.approx(0.5) and found["length"] == pytest.approx(1)
    assert found["level"] == pytest.approx(100 + 0.5 * tokens.mean())
    assert [found[f"change_{n}"] for n in range(1, 5)] == pytest.approx([0.5, 1, 0, -2])


def test_at_equal_length_the_length_does_not_count():
    """Attractors make sentences longer, and only the length makes entropy."""
    rng = np.random.default_rng(1)
    attractors = rng.integers(1, 5, 2000)
    tokens = 10 + attractors + rng.integers(0, 3, 2000)
    noise = 0.01 * rng.standard_normal(2000)
    drawn = sentences_with(tokens + noise, attractors, tokens)
    found = entropy.summary(drawn, sentences_with(np.zeros(10), np.repeat(range(5), 2), [9] * 10))
    assert max(found[f"spearman_{n}"] for n in range(1, 5)) > 0.1
    assert abs(found["spearman_equal"]) < 0.1


def test_kinds_of_verbs_explain_what_the_length_does_not():
    tokens = np.tile([8, 8, 9, 9], 50)
    values = tokens + np.tile([0.0, 5.0], 100)
    drawn = sentences_with(values, np.tile(range(1, 5), 50), tokens)
    assert entropy.explained(drawn, ["tokens"]) < 0.1
    assert entropy.explained(drawn, ["tokens", "kind"]) == pytest.approx(1)


def test_the_versions_of_a_sentence_differ_in_attractors_only():
    drawn, paired = entropy.sentence_sets(8, 3)
    assert [len(one.attractors) for one in drawn] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert len(paired) == 15
    for n in range(3):
        same = paired[n::3]
        assert [len(one.attractors) for one in same] == [0, 1, 2, 3, 4]
        assert len({(len(one.words), one.subject, one.words[one.verb]) for one in same}) == 1


def test_a_shuffled_model_has_the_same_weights_in_other_places():
    model = zoo.BertForMaskedLM(
        generated.config(zoo.Grammar(), layers=1, width=8), rngs=nnx.Rngs(0)
    )
    found = controls(model, 0)
    assert found["trained"] is model
    pairs = zip(
        *(jax.tree.leaves(nnx.state(each, nnx.Param)) for each in found.values()), strict=False
    )
    moved = 0
    for trained, untrained, shuffled in pairs:
        np.testing.assert_array_equal(np.sort(trained, None), np.sort(shuffled, None))
        moved += (np.asarray(trained) != shuffled).sum()
        assert trained.shape == untrained.shape
    assert moved > 100


def test_a_grid_goes_on(tmp_path):
    options = {
        "sentences": 64,
        "examined": 120,
        "versions": 2,
        "epochs": 1,
        "layers": 1,
        "width": 8,
    }
    first = entropy.grid([0, 1], tmp_path, **options, progress=False)
    again = entropy.grid([0, 1], tmp_path, **options, progress=False)
    pandas.testing.assert_frame_equal(first, again)
    assert [*first["model"]] == [*MODELS] * 2
    claims = entropy.claims(first)
    slopes = first.loc[first["model"] == "trained", "slope"]
    assert claims[0].ours.mean == pytest.approx(slopes.mean()) and claims[0].ours.n == 2
