"""Rankings and their curves, the grid, and what is said of it."""

import types

import jax
import numpy as np
import pandas
import pytest
from flax import nnx

import semijax as sj
from semijax.experiments import agreement, comparisons, faithfulness, first_token, rankings

EXAMPLES = 2
SMALL = {"sequences": 700, "epochs": 1}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    options = SMALL | {"progress": False}
    return faithfulness.classifier_cases([1], folder, EXAMPLES, **options)["True examples", 1]


@pytest.fixture(scope="module")
def scores(case):
    return rankings.blind_scores(case.components, case.state, case.examples)


def first(case):
    return jax.tree.map(lambda array: array[0], case.examples)


def test_only_the_query_that_is_read_is_a_candidate(case):
    queries, keys, values = case.candidates[0]
    assert queries.tolist() == [True] + [False] * 9 and keys.all() and values.all()


def test_gradient_times_activation_by_hand(case, scores):
    """The gradient with respect to a value that is put in place of the site's own."""
    fun, example = case.components.of(case.state), first(case)
    for number, site in enumerate(case.components.sites):
        value = sj.site_values(fun, site)(example)[site]
        gradient = jax.grad(lambda v, site=site: sj.ablate(fun, site, v)(example))(value)
        expected = {
            "gradient × activation": (gradient * value).sum(-1),
            "|gradient × activation|": np.abs((gradient * value).sum(-1)),
            "|grad|": np.abs(gradient).sum(-1),
        }
        for name, own in expected.items():
            np.testing.assert_allclose(scores[name][0, number], own, rtol=1e-4, atol=1e-6)


def test_scores_are_what_their_names_say(case, scores):
    for name in ("mass", "strongest path", "entropy"):
        assert (np.asarray(scores[name])[~case.candidates] <= 0).all()
    assert (np.asarray(scores["largest path"]) <= np.asarray(scores["strongest path"])).all()
    zeros = rankings.replacements(case.components, case.state, case.others)["zero"]
    told = rankings.told_scores(case.components, case.state, case.examples, zeros)
    first_order = told["first order"]  # with zeros in place, that is gradient × activation
    np.testing.assert_allclose(first_order, scores["gradient × activation"], atol=1e-6)


def test_curves_are_those_of_faithfulness(case, scores):
    components, example = case.components, first(case)
    zeros = rankings.replacements(components, case.state, case.others)["zero"]
    counts = np.arange(22)
    given = components, case.state, case.examples, zeros
    by_site = dict(zip(components.sites, np.asarray(scores["mass"][0]), strict=True))
    expected = sj.faithfulness(components.of(case.state), by_site, steps=30, n_random=1)(example)
    for ranking, name in (("mass", "ranking"), ("|grad|", "|grad|")):
        found = rankings.curves(*given, case.candidates, counts, scores[ranking])[0]
        np.testing.assert_allclose(found[0], expected.deletion[name][:22], atol=1e-5)
        np.testing.assert_allclose(found[1], expected.insertion[name][:22], atol=1e-5)
    effects = rankings.told_scores(*given)["each alone"]
    alone = rankings.curves(*given, case.candidates, np.array([0, 1]), effects)[:, 0]
    np.testing.assert_allclose(alone[:, 0] - alone[:, 1], effects.max((1, 2)), atol=1e-5)


def test_an_area_is_the_mean_on_the_way():
    np.testing.assert_allclose(rankings.areas([[4.0, 0.0], [1.0, 1.0]], [0, 7]), [2, 1])
    np.testing.assert_allclose(rankings.areas([4.0, 0.0, 0.0], [0, 1, 4]), 0.5)


def test_a_grid_goes_on(tmp_path, monkeypatch):
    """What is examined is written model by model, and not examined again."""
    examined = []

    def examine(case, seed):
        examined.append(seed)
        if len(examined) == 2:
            raise KeyboardInterrupt
        return {name: [{"value": case.number}] for name in faithfulness.TABLES}

    def cases(seeds, out, examples, **options):
        made = types.SimpleNamespace
        return {
            (name, seed): made(validation=1.0, number=10 * seed)
            for name in ("True examples", "False examples")
            for seed in seeds
        }

    monkeypatch.setattr(faithfulness, "examine", examine)
    monkeypatch.setattr(faithfulness, "classifier_cases", cases)
    options = {"data": ["True examples"], "progress": False}
    with pytest.raises(KeyboardInterrupt):
        faithfulness.grid([3, 4], tmp_path, **options)
    (tmp_path / "faithfulness_tokens.csv").unlink()  # as if it had been killed before
    tables = faithfulness.grid([3, 4], tmp_path, **options)
    assert examined == [3, 4, 3, 4]
    for table in tables.values():
        assert table.sort_values("seed")["value"].tolist() == [30, 40]


def test_a_classifier_is_examined_with_all_rankings(case, scores):
    found = faithfulness.examine(case._replace(steps=3), 0)
    areas = pandas.DataFrame(found["areas"])
    assert len(areas) == len(rankings.RANKINGS) * 3 * 2
    assert areas.groupby("replacement")[["whole", "none"]].agg(np.ptp).to_numpy().max() < 1e-5
    tokens = pandas.DataFrame(found["tokens"])
    assert {*tokens["kind"]} == {"first", "repeat", "other"} and len(tokens) == 2 * 3 * 3
    row = tokens.set_index(["model", "kind", "site"]).loc["trained", "repeat", "key"]
    repeats = case.kinds == "repeat"
    np.testing.assert_allclose(row["share"], scores["mass"][:, 1][repeats].mean(), rtol=1e-5)
    assert row["count"] == 1
    shuffled = pandas.DataFrame(found["shuffled"])
    head = shuffled[shuffled["group"] == "classifier"]
    assert (head["correlation"] > shuffled["correlation"].min()).any()


def test_a_language_model_is_examined_on_sentences_of_one_length(tmp_path):
    options = {"sentences": 64, "layers": 1, "width": 8, "epochs": 1, "progress": False}
    cases = faithfulness.sentence_cases([3], tmp_path, EXAMPLES, **options)
    ((data, seed), case) = next(iter(cases.items()))
    assert (data, seed) == ("sentences", 3) and case.kinds.shape == (EXAMPLES, 14)
    assert (case.candidates.sum((1, 2)) == 13).all()  # all but [MASK]
    assert ((case.kinds == "subject").sum(1) == 1).all()
    model = nnx.merge(case.components.structure, case.state)
    example = first(case)
    margin = case.components.of(case.state)(example)
    np.testing.assert_allclose(margin, agreement.margin(model, example), rtol=1e-4)
    average = rankings.replacements(case.components, case.state, case.others)["mean"]
    (of_layer,) = average.values()
    assert of_layer.shape == (EXAMPLES, 14, 8) and np.ptp(of_layer, axis=(0, 1)).max() == 0


@pytest.fixture
def made_up():
    """Nine models, two replacements: "a" is better than |grad| by 1, but for noise; "b" is not."""
    rng = np.random.default_rng(0)
    base = {"a": 1.0, "b": 0.0, "|grad|": 0.0, "gradient × activation": 0.0, "random": -3.0}
    rows = []
    for seed in range(9):
        level = 10 * rng.normal()  # of the model
        for curve, sign in (("deletion", -1), ("insertion", 1)):
            for replacement in ("zero", "mean"):
                for ranking, better in base.items():
                    noise = 0.1 * rng.normal() if ranking != "b" else rng.normal()
                    area = level + sign * (better + noise)
                    rows.append(("made up", seed, curve, replacement, ranking, area))
    return pandas.DataFrame(
        rows, columns=["data", "seed", "curve", "replacement", "ranking", "area"]
    )


def test_comparisons_are_paired_and_corrected(made_up):
    compared = comparisons.comparisons(made_up)
    table = comparisons.verdicts(compared, "made up", "|grad|")
    assert {*table.loc["a"]} == {"better"} and {*table.loc["b"]} == {"inconclusive"}
    assert {*comparisons.verdicts(compared, "made up", "random").loc["|grad|"]} == {"better"}
    assert (compared["q"] >= compared["p"]).all() and (compared["q"] > compared["p"]).any()
    assert "random" not in {*compared["ranking"]}
    options = {"among": ["a", "b", "|grad|"], "over": ["|grad|", "gradient × activation"]}
    won = comparisons.unanimous(compared, "better", **options)
    assert won == {("made up", "deletion"): ["a"], ("made up", "insertion"): ["a"]}
    lost = compared["replacement"].eq("zero") & compared["ranking"].eq("a")
    compared.loc[lost, "verdict"] = "worse"  # with one replacement it is so, with another not
    assert comparisons.unanimous(compared, "better", **options) == {
        ("made up", "deletion"): [],
        ("made up", "insertion"): [],
    }


def test_a_deletion_curve_is_better_where_it_is_lower(made_up):
    gains = comparisons.gains(made_up, "made up", "|grad|")
    assert (gains["deletion", "zero", "a"] > 0).all() and (
        gains["insertion", "mean", "a"] > 0
    ).all()
    assert (gains["deletion", "zero", "|grad|"] == 0).all()


def test_no_difference_at_all_is_none(made_up):
    same = made_up.assign(area=1.0)
    compared = comparisons.comparisons(same)
    assert {*compared["verdict"]} == {"inconclusive"} and (compared["q"] == 1).all()


def test_only_models_that_learned_count():
    table = pandas.DataFrame({"validation": [0.62, 1.0], "seed": [0, 1]})
    assert faithfulness.learned(table)["seed"].tolist() == [1]
    assert first_token.checkpoint_path("out", 0.0, 700, [0, 1]).name == "0.0-700-0-1"
