"""Fig. 2: the data, the graph and the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
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


def test_a_grid_goes_on(tmp_path):
    options = {"sequences": 320, "epochs": 1, "dropouts": (0.0, 0.2), "progress": False}
    table = first_token.grid([0, 1], tmp_path, **options)
    again = first_token.grid([0, 1], tmp_path, **options)
    pandas.testing.assert_frame_equal(table, again)
    runs = table[["dropout", "seed", "model"]].drop_duplicates()
    assert len(runs) == 12 and not table["arrived"].any()
    structural = table["kind"].isin(["repeat", "other"]) & table["branch"].isin(["query", "skip"])
    assert (table.loc[structural, "mean"] == 0).all()


def made_up(values, model, seed):
    """Rows of a grid: branch values by kind and branch, 0 where none is given."""
    return [
        {
            "dropout": 0.0,
            "seed": seed,
            "arrived": seed < 3,
            "model": model,
            "granularity": "op",
            "layer": 0,
            "kind": kind,
            "branch": branch,
            "mean": values.get((kind, branch), 0.0),
        }
        for kind in first_token.KINDS
        for branch in ("key", "query", "value", "skip")
    ]


def test_claims_are_about_the_seeds_that_arrived():
    rows = []
    for seed, noise in enumerate([0.01, 0.02, 0.03, -0.5]):
        trained = {("repeat", "key"): 0.3 + noise, ("first", "query"): 0.3, ("first", "skip"): 0.1}
        rows += made_up(trained, "trained", seed)
        rows += made_up({("repeat", "value"): 0.1, ("first", "skip"): 0.1}, "untrained", seed)
        rows += made_up({("repeat", "key"): 0.1, ("other", "key"): 0.1}, "shuffled", seed)
    more, most, queries = first_token.claims(pandas.DataFrame(rows))
    assert [claim.ours.n for claim in (more, most, queries)] == [3, 3, 3]
    assert more.values.tolist() == [0.5] * 3 and more.verdict == "confirmed"
    np.testing.assert_allclose(
        most.values, [0.31 / 0.61 - 0.5, 0.32 / 0.62 - 0.5, 0.33 / 0.63 - 0.5]
    )
    assert queries.values == pytest.approx([0.25] * 3)
    assert queries.control == pytest.approx([-0.5] * 3)
    assert more.shuffled == pytest.approx([0] * 3)
