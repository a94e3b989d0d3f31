"""Branch values: against their definition, written out for one token at a time."""

import numpy as np
import pytest
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments import branches
from semijax.experiments.branches import (
    ALL,
    BRANCHES,
    branch_bars,
    branch_curves,
    branch_study,
    branch_table,
)

from ..compilation import quick_jit

CONFIG = zoo.BertConfig(
    vocab_size=13,
    hidden_size=6,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=5,
    max_position_embeddings=8,
    initializer_range=1.0,
)
TOKENS = np.random.default_rng(0).integers(1, 13, (7, 5))


@pytest.fixture(scope="module")
def model():
    return zoo.BertForSequenceClassification(CONFIG, rngs=nnx.Rngs(0))


def kinds(tokens):
    found = np.where(np.asarray(tokens) % 2, "odd", "even").astype(object)
    found[:, -1] = ""  # as if it were padding
    return found


def logit(model, tokens):
    return model(tokens)[1]


def study_of(model, **options):
    batches = [TOKENS[:4], TOKENS[4:]]
    return branch_study(model, logit, batches, kinds, progress=False, **options)


@pytest.fixture(scope="module")
def study(model):
    return study_of(model)


@pytest.mark.parametrize("granularity", ["element", "op"])
def test_values_are_those_of_the_best_hidden_units(model, study, granularity):
    expected = {}
    analysis = quick_jit(
        sj.branch_flow(
            lambda tokens: model(tokens)[1],
            sj.MaxProduct(),
            "*/layer/*:input",
            BRANCHES,
            reduce="sum",
            granularity=granularity,
        )
    )
    with sj.scopes(model):
        for tokens, own in zip(TOKENS, kinds(TOKENS), strict=True):
            flow = analysis(tokens)
            units = {
                site: {b: sj.MaxProduct().readout(e) for b, e in flow.elements[site].items()}
                for site in flow
            }
            for layer, by_branch in enumerate(units.values()):
                values = np.stack(
                    [np.asarray(v) for v in by_branch.values()]
                )  # [branch, token, unit]
                for token, kind in enumerate(own):
                    if kind:
                        best = values[:, token].max()
                        branch, _ = np.argwhere(values[:, token] == best)[0]
                        for number, name in enumerate(by_branch):
                            value = best if number == branch else 0
                            statistic = f"{granularity}/{layer}/{name}"
                            for group in (kind, ALL):
                                of_group = expected.setdefault((statistic, group), {})
                                of_group.setdefault(tuple(tokens), []).append(value)
    for (statistic, kind), examples in expected.items():
        numbers = np.concatenate([*examples.values()])
        deviations = [np.sum(own - numbers.mean()) for own in examples.values()]
        n = len(examples)
        stderr = np.sqrt(n / (n - 1) * np.square(deviations).sum()) / len(numbers)
        moments = study[statistic][kind]
        assert (moments.count, moments.examples) == (len(numbers), n)
        assert moments.mean == pytest.approx(numbers.mean(), rel=1e-4, abs=1e-6)
        assert moments.stderr == pytest.approx(stderr, rel=1e-3, abs=1e-6)
    assert {kind for _, kind in expected} == {"odd", "even", ALL}


def test_the_table_has_all_tokens_and_shares(study):
    table = branch_table(study)
    assert set(table["kind"]) == {"odd", "even", ALL}
    assert set(table["layer"]) == {0, 1} and set(table["granularity"]) == {"element", "op"}
    every = table[table["kind"] == ALL]
    assert set(every["count"]) == {TOKENS[:, :-1].size}
    assert set(every["examples"]) == {len(TOKENS)} and set(table["dropped"]) == {0}
    for _, rows in table.groupby(["granularity", "layer", "branch"]):
        parts = rows[rows["kind"] != ALL]
        total = (parts["count"] * parts["mean"]).sum() / parts["count"].sum()
        assert rows[rows["kind"] == ALL]["mean"].item() == pytest.approx(total)
    for _, rows in table.groupby(["granularity", "layer", "kind"]):
        if rows["mean"].sum() > 0:
            assert rows["share"].sum() == pytest.approx(1)
            np.testing.assert_allclose(rows["share"], rows["mean"] / rows["mean"].sum())
        else:
            assert rows["share"].isna().all()


def test_where_nothing_flows_there_is_no_share(model):
    study = branch_study(
        model,
        lambda model, tokens: 0 * logit(model, tokens),
        [TOKENS],
        kinds,
        progress=False,
        granularities=("element",),
    )
    assert branch_table(study)["share"].isna().all()


def test_pictures_show_the_means_and_their_intervals(study):
    table = branch_table(study)
    first = table[(table["granularity"] == "op") & (table["layer"] == 0)]
    bars = branch_bars(first, ["odd", "even"], title="a title").figure.axes[0]
    for container, branch in zip(bars.containers[::2], BRANCHES, strict=True):
        rows = first[first["branch"] == branch].set_index("kind").loc[["odd", "even"]]
        drawn = getattr(container, "patches", None) or container
        heights = [bar.get_height() for bar in drawn]
        np.testing.assert_allclose(heights, rows["mean"])
    kind = table[(table["granularity"] == "op") & (table["kind"] == "odd")]
    picture = branch_curves(kind)
    lines = picture.figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == [*BRANCHES]
    for line, branch in zip(lines, BRANCHES, strict=True):
        rows = kind[kind["branch"] == branch].sort_values("layer")
        np.testing.assert_allclose(line.get_ydata(), rows["mean"])
    assert "granularity 'op'" in picture.caption


def test_more_than_ten_layers_are_in_order():
    class Doubling(nnx.Module):
        def __call__(self, x):
            for layer in range(12):
                x = 2 * sj.tap(x, f"layer_{layer}")
            return x.sum()

    study = branch_study(
        Doubling(),
        lambda model, x: model(x),
        [np.ones((1, 1, 1))],
        lambda batch: [["only"]],
        layers="layer_*",
        branches={"on": sj.REST},
        granularities=("element",),
        progress=False,
    )
    means = [study[f"element/{layer}/on"]["only"].mean for layer in range(12)]
    assert means == [2.0**n for n in range(12, 0, -1)]


def test_a_study_resumes(model, study, tmp_path):
    path = tmp_path / "study.json"
    study_of(model, checkpoint=path)
    again = study_of(model, checkpoint=path)
    assert again.statistics == study.statistics


def test_nothing_is_read_of_a_site_that_is_not_there(model):
    with pytest.raises(ValueError, match="layers"):
        study_of(model, layers="*/layers/*:input")


def test_models_of_one_architecture_are_compiled_once(model):
    first = study_of(model)
    compiled = branches._branch_values._cache_size()
    other = study_of(zoo.BertForSequenceClassification(CONFIG, rngs=nnx.Rngs(1)))
    assert branches._branch_values._cache_size() == compiled
    assert other.statistics != first.statistics
