"""The agreement pipeline: batches, numbers against one sentence at a time, and the command."""

import jax
import numpy as np
import pandas
import pytest
from flax import nnx
from matplotlib.image import imread

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, generated
from semijax.experiments.branches import ALL, branch_table
from semijax.experiments.controls import MODELS, untrained_like

from ..compilation import quick_jit

GRAMMAR = zoo.Grammar()


@pytest.fixture(scope="module")
def sentences():
    drawn = GRAMMAR.sample(40, attractors=[1, 2], seed=0)
    return [s for s in drawn if 8 < len(s.words) + 2 <= 16][:7]  # padded alike: compiled once


@pytest.fixture(scope="module")
def encoded(sentences):
    kept, encoded, reasons = agreement.encodable(sentences, GRAMMAR.tokenizer())
    assert kept == sentences and not reasons
    return encoded


@pytest.fixture(scope="module")
def model():
    config = generated.config(GRAMMAR, layers=2, width=12)
    return zoo.BertForMaskedLM(config, rngs=nnx.Rngs(0))


def test_batches_have_every_sentence_once(encoded):
    for batch_size in (1, 3, 7, 16):
        found = {}
        for batch in agreement.batches(encoded, batch_size):
            assert batch.ids.shape[0] == batch_size
            longest = batch.attention_mask.sum(1).max()
            assert batch.ids.shape[1] == longest
            for row, number in enumerate(batch.sentence):
                if number >= 0:
                    assert number not in found
                    found[number] = batch.attention_mask[row].sum()
                    one = encoded[number]
                    length = len(one.ids)
                    assert batch.ids[row, :length].tolist() == one.ids.tolist()
                    assert not batch.ids[row, length:].any()
                    assert not batch.attention_mask[row, length:].any()
                    names = agreement.kinds(batch)[row]
                    assert names[:length].tolist() == [zoo.KINDS[kind] for kind in one.kinds]
                    assert (names[length:] == "").all()
                else:
                    assert (agreement.kinds(batch)[row] == "").all()
        assert found == {n: len(one.ids) for n, one in enumerate(encoded)}


def example_of(encoded):
    (batch,) = agreement.batches([encoded], 1)
    return agreement.Batch(*(array[0] for array in batch))


def test_the_margin_is_that_of_the_whole_model(model, encoded):
    for one in encoded[:2]:
        logits = quick_jit(lambda ids: model(ids))(one.ids)[one.mask]
        expected = logits[one.right] - logits[one.wrong]
        assert float(agreement.margin(model, example_of(one))) == pytest.approx(
            float(expected), abs=1e-5
        )


def test_sentences_are_examined_as_if_alone(model, sentences, encoded):
    """Neither padding nor the batch changes a number."""
    options = {"granularities": ("op",), "progress": False}
    branches, table = agreement.examine(model, sentences, encoded, batch_size=4, **options)
    assert table["text"].tolist() == [" ".join(sentence.words) for sentence in sentences]
    assert table["tokens"].tolist() == [len(one.ids) for one in encoded]
    assert table["attractors"].tolist() == [len(s.attractors) for s in sentences]
    assert (table["correct"] == (table["margin"] > 0)).all()
    for number in (0, len(sentences) - 1):
        one = encoded[number]

        def quantity(words, one=one):
            x = model.bert.embeddings
            hidden = words + x.token_type_embeddings(np.zeros_like(one.ids))
            hidden = x.LayerNorm(hidden + x.position_embeddings(np.arange(len(one.ids))))
            logits = model.predict(model.bert.encoder(hidden)[one.mask])
            return logits[one.right] - logits[one.wrong]

        words = model.bert.embeddings.word_embeddings(one.ids)
        analysis = sj.semiring_value_and_grad(quantity, sj.Entropy(), aggregate=-1)
        value, entropy = quick_jit(analysis)(words)
        gradient = quick_jit(jax.grad(quantity))(words)
        np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-4)  # a layer norm's
        row = table.loc[number]
        assert row["margin"] == pytest.approx(float(value), abs=1e-5)
        assert row["entropy"] == pytest.approx(float(entropy.mean()), rel=1e-5)
        norms = np.linalg.norm(gradient, axis=-1)
        assert row["gradient"] == pytest.approx(norms.mean(), rel=1e-4) and norms.mean() > 1e-3
    alone, _ = agreement.examine(model, sentences, encoded, batch_size=1, **options)
    np.testing.assert_allclose(alone["mean"], branches["mean"], rtol=1e-3, atol=1e-7)
    tokens = sum(len(one.ids) for one in encoded)
    assert set(branches[branches["kind"] == ALL]["count"]) == {tokens}
    subjects = branches[branches["kind"] == "subject"]
    assert set(subjects["count"]) == {len(sentences)}
    assert set(subjects["layer"]) == {0, 1}


def test_in_the_last_layer_only_the_mask_has_a_skip_and_a_query_path(model, encoded):
    """The architecture's part of Fig. 4: after it only [MASK] is read."""
    branches = branch_table(
        agreement.branch_values(model, agreement.batches(encoded, 7), progress=False)
    )
    last = branches[(branches["layer"] == 1) & branches["branch"].isin(["skip", "query"])]
    others = last[~last["kind"].isin(["mask", ALL])]
    assert len(others) > 0 and (others["mean"] == 0).all()


def test_an_examination_resumes_and_knows_its_model(model, sentences, encoded, tmp_path):
    options = {"folder": tmp_path, "batch_size": 4, "progress": False, "granularities": ("op",)}
    first = agreement.examine(model, sentences, encoded, **options)
    again = agreement.examine(model, sentences, encoded, **options)
    for one, other in zip(first, again, strict=True):
        pandas.testing.assert_frame_equal(one, other)
    read = pandas.read_csv(tmp_path / "sentences.csv")
    np.testing.assert_allclose(read["entropy"], first[1]["entropy"])
    other = untrained_like(model, seed=1)
    assert agreement.fingerprint(other) != agreement.fingerprint(model)
    with pytest.raises(ValueError, match="is of another study: model was"):
        agreement.examine(other, sentences, encoded, **options)


def test_the_command_reads_files_and_writes_tables_and_pictures(tmp_path, capsys):
    folder, path, out = tmp_path / "bert", tmp_path / "sentences.tsv", tmp_path / "out"
    _, history = generated.train(
        folder, sentences=128, layers=2, width=12, epochs=1, progress=False
    )
    assert len(history.scores) == 1
    zoo.write_linzen(GRAMMAR.sample(20, attractors=[1, 2], seed=3), path)
    command = [str(path), str(folder), "--out", str(out), "--attractors", "4", "3"]
    agreement.main([*command, "--batch-size", "7"])
    text = capsys.readouterr().out
    assert "7 sentences drawn, 7 of them examined." in text
    for name in ("trained", "untrained"):
        assert f"The {name} model gets" in text
        table = pandas.read_csv(out / name / "sentences.csv")
        assert sorted(table["attractors"]) == [1, 1, 1, 1, 2, 2, 2]
        for group in ("all_tokens", "subject", "attractor"):
            for granularity in ("element", "op"):
                assert imread(out / name / f"branches_{granularity}_{group}.png").std() > 0
    agreement.main([*command, "--batch-size", "7"])
    assert capsys.readouterr().out == text


def test_training_on_the_language_is_read_when_called_again(tmp_path):
    options = {"sentences": 128, "layers": 1, "width": 8, "epochs": 2, "progress": False}
    model, history = generated.train(tmp_path, **options)
    again, same = generated.train(tmp_path, **options)
    assert same == history
    assert agreement.fingerprint(again) == agreement.fingerprint(model)
    loaded = zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path)
    assert agreement.fingerprint(loaded) == agreement.fingerprint(model)
    assert zoo.load_tokenizer(tmp_path).get_vocab() == GRAMMAR.tokenizer().get_vocab()


def test_a_grid_over_seeds_goes_on_and_states_its_claims(tmp_path):
    options = {"examined": 16, "sentences": 64, "epochs": 1, "layers": 2, "width": 8}
    table = generated.grid([0, 1], tmp_path, **options, progress=False)
    again = generated.grid([0, 1], tmp_path, **options, progress=False)
    pandas.testing.assert_frame_equal(table, again)
    assert set(table["model"]) == {*MODELS}
    keys, subjects, skips = generated.claims(table)
    assert all(claim.ours.n == 2 for claim in (keys, subjects, skips))
    own = table[(table["granularity"] == "op") & (table["model"] == "trained")]
    own = own.set_index(["seed", "kind", "layer", "branch"])["mean"]
    key, value = (own[0, "subject", 1, branch] for branch in ("key", "value"))
    assert keys.values[0] == pytest.approx(key / (key + value) - 0.5 if key + value else 0)


def test_training_several_seeds_saves_each(tmp_path):
    options = {"sentences": 64, "layers": 1, "width": 8, "epochs": 1, "progress": False}
    models = generated.train_seeds(tmp_path, [0, 3], **options)
    for seed, (model, history) in zip([0, 3], models, strict=True):
        read = zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path / str(seed))
        assert agreement.fingerprint(read) == agreement.fingerprint(model)
        assert len(history.losses) == 1
    alone, _ = generated.train(tmp_path / "alone", seed=3, **options)
    together, by_itself = (nnx.state(model, nnx.Param) for model in (models[1][0], alone))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(by_itself), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
