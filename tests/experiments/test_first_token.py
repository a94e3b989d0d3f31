"""Fig. 2: the data, the graph and the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax import zoo
from semijax.experiments import first_token
from semijax.experiments.branches import branch_table

from ..compilation import quick_jit


@pytest.fixture(scope="module")
def data():
    return first_token.TASK.sample(60)


def test_kinds_of_tokens(data):
    kinds = first_token.kinds(data)
    assert set(kinds.ravel()) == set(first_token.KINDS)
    assert (kinds[:, 0] == "first").all() and (kinds[:, 1:] != "first").all()
    np.testing.assert_array_equal((kinds == "repeat").sum(1), data.labels)


def test_training_gets_better():
    splits = zoo.split(first_token.TASK.sample(700))
    _, history = first_token.trained_model(splits, epochs=3, progress=False)
    assert history.losses[-1] < history.losses[0] and len(history.scores) == 3


def test_the_maximum_of_the_softmax_changes_no_value_but_the_graph(data):
    model = first_token.untrained_model()
    changed = first_token.with_maximum_in_softmax(model)
    np.testing.assert_allclose(model(data.tokens), changed(data.tokens), atol=1e-6)
    assert model.bert.encoder.layer[0].attention.self.softmax is jax.nn.softmax

    def paths(model):
        x = model.bert.embeddings(data.tokens[0])
        counts = sj.semiring_grad(
            lambda x: model.classify(model.bert.encoder(x))[0], sj.PathCount()
        )
        return quick_jit(counts)(x).max()

    assert paths(changed) > paths(model)
    gradients = [
        quick_jit(jax.grad(lambda x, m=m: m.classify(m.bert.encoder(x))[0]))(
            m.bert.embeddings(data.tokens[0])
        )
        for m in (model, changed)
    ]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_only_the_first_token_has_a_query_and_a_skip_path(data):
    """The architecture's part of Fig. 2: only position 0 is read after the only layer."""
    table = branch_table(first_token.branch_values(first_token.untrained_model(), data))
    others = table[table["kind"].isin(["repeat", "other"])].set_index("branch")
    assert (others.loc[["query", "skip"], "mean"] == 0).all()
    first = table[(table["kind"] == "first") & (table["granularity"] == "op")].set_index("branch")
    assert first.loc["skip", "mean"] > 0


def test_values_do_not_depend_on_the_batches(data):
    model = first_token.untrained_model(1)
    tables = [
        branch_table(first_token.branch_values(model, data, batch_size=size)) for size in (60, 20)
    ]
    np.testing.assert_allclose(tables[0]["mean"], tables[1]["mean"], rtol=1e-4, atol=1e-8)
    assert jnp.isfinite(tables[0]["stderr"].to_numpy()).all()
