"""Are the components that a ranking calls important those that a model needs? Over seeds.

``python -m semijax.experiments.faithfulness --out FOLDER`` takes the classifiers of Fig. 2 and the
language models of Fig. 4, ten of each, and replaces their components in the order of each ranking:
by paths, by the gradient, by chance. It may be killed and started again, and uses the models that
``first_token`` and ``generated`` have left in the same folder.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, first_token, generated, rankings
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.comparisons import RIVALS, comparisons, gains, verdicts
from semijax.experiments.controls import untrained_like
from semijax.experiments.rankings import Components
from semijax.experiments.results import ResultTable

TRUE, FALSE, SENTENCES = DATA = ("True examples", "False examples", "sentences")
"""The data: the classifiers' two kinds of examples, and the language models' sentences."""

SHUFFLED = ("mass", "strongest path", "|grad|")
"""The rankings that are compared with those of models with shuffled weights."""

MEASURES = {"share": "mass", "expected": "first order", "measured": "each alone"}
"""The columns of the table of tokens, and the scores that they are means of."""

LEARNED = 0.95
"""The validation accuracy above which a model counts: the others have not learned the task."""

TABLES = ("areas", "tokens", "shuffled")
"""The tables of a grid, by the end of their files' names."""

KEY = ("data", "seed", "examples")
"""The columns that tell their runs apart."""

MODELS = ("trained", "untrained")
"""The models of the table of tokens."""

BRANCHES = ("query", "key", "value")
"""The classifier's sites: what its only layer makes of each token."""

SENTENCE_LENGTH = 14
"""The number of tokens of the sentences, so that they fit in one batch."""


class Case(NamedTuple):
    """A model and what it is examined on.

    Attributes:
        components: the tokens at some sites.
        labels: the sites' names in the table.
        state: the model's, by ``nnx.split``.
        untrained: the state of the same model with random weights.
        validation: the model's accuracy at the end of its training.
        examples: a pytree of arrays ``[examples, ...]``.
        others: as many other examples, to take replacements from.
        candidates: the components to rank, as many in each example: bool
            ``[examples, sites, tokens]``.
        kinds: of the tokens, str ``[examples, tokens]``; ``""`` for those that are not told apart.
        groups: of parameters, from the output to the input, see ``sj.randomization_test``.
        steps: of the curves, from no component to all of them.
    """

    components: Components
    labels: tuple[str, ...]
    state: Any
    untrained: Any
    validation: float
    examples: Any
    others: Any
    candidates: np.ndarray
    kinds: np.ndarray
    groups: tuple[str, ...]
    steps: int


def classifier_cases(
    seeds: Sequence[int],
    out: pathlib.Path,
    examples: int,
    *,
    sequences: int = 10_000,
    **options: Any,
) -> dict[tuple[str, int], Case]:
    """Train the classifiers of Fig. 2, without dropout, or read what ``first_token`` has trained.

    Args:
        seeds: of the models.
        out: the folder with ``models``.
        examples: how many True and how many False test examples to look at.
        sequences: of the data.
        **options: of ``first_token.trained_models``.

    Returns:
        Two cases per seed, by data and seed. A component is a token's query, key or value; those of
        the queries that are not read have no path to the logit, and are no candidates.
    """
    splits = zoo.split(first_token.TASK.sample(sequences))
    checkpoint = first_token.checkpoint_path(out, 0.0, sequences, seeds)
    models = first_token.trained_models(splits, seeds, checkpoint=checkpoint, **options)
    test = splits.test
    others = _rows(test, np.arange(len(test.labels))[-examples:])
    layer = "BertForSequenceClassification/bert/encoder/layer/0/attention/self"
    sites = tuple(f"{layer}/{name}" for name in BRANCHES)
    groups = ("classifier", "bert/pooler", "bert/encoder", "bert/embeddings")
    cases = {}
    for seed, (model, history) in zip(seeds, models, strict=True):
        untrained = first_token.untrained_model(seed)
        untrained.eval()
        structure, state = nnx.split(first_token.with_maximum_in_softmax(model))
        components = Components(first_token.correct_logit, sites, structure)
        for name, label in ((TRUE, 1), (FALSE, 0)):
            own = _rows(test, np.flatnonzero(test.labels == label)[:examples])
            has_path = np.asarray(rankings.reachable(components, state, _rows(own, 0)))
            cases[name, seed] = Case(
                components,
                BRANCHES,
                state,
                nnx.split(first_token.with_maximum_in_softmax(untrained))[1],
                history.scores[-1],
                own,
                others,
                np.broadcast_to(has_path, (examples, *has_path.shape)),
                first_token.kinds(own),
                groups,
                steps=int(has_path.sum()),
            )
    return cases


def sentence_cases(
    seeds: Sequence[int], out: pathlib.Path, examples: int, **options: Any
) -> dict[tuple[str, int], Case]:
    """Train the language models of Fig. 4, or read what ``generated`` has trained.

    Args:
        seeds: of the models.
        out: the folder with ``models``.
        examples: how many sentences to look at, with one or two attractors.
        **options: of ``generated.train_seeds``.

    Returns:
        A case per seed, by data and seed. A component is the state of a token at the input of a
        layer. ``[MASK]``, where the verb is read, is no candidate: to put it first is to know where
        the output is read.
    """
    grammar = zoo.Grammar()
    drawn = grammar.sample(max(400, 25 * examples), attractors=(1, 2), seed=7)
    _, encoded, _ = agreement.encodable(drawn, grammar.tokenizer())
    fitting = [one for one in encoded if len(one.ids) == SENTENCE_LENGTH][: 2 * examples]
    sentences, others = agreement.batches(fitting, examples)
    kinds = agreement.kinds(sentences)
    cases = {}
    models = generated.train_seeds(out / "models", seeds, **options)
    for seed, (model, history) in zip(seeds, models, strict=True):
        layers = range(model.config.num_hidden_layers)
        sites = tuple(f"BertForMaskedLM/bert/encoder/layer/{n}:input" for n in layers)
        structure, state = nnx.split(model)
        cases[SENTENCES, seed] = Case(
            Components(agreement.margin, sites, structure),
            tuple(f"layer {n}" for n in layers),
            state,
            nnx.split(untrained_like(model, seed=1000 + seed))[1],
            history.scores[-1],
            sentences,
            others,
            np.repeat((kinds != "mask")[:, None], len(layers), axis=1),
            np.where(kinds == "mask", "", kinds),
            ("cls", "bert/encoder", "bert/embeddings"),
            steps=SENTENCE_LENGTH - 1,
        )
    return cases


def examine(case: Case, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Test all rankings on one model.

    Args:
        case: the model and what to examine.
        seed: of the random ranking, drawn anew for each example, and of shuffled weights.

    Returns:
        The rows of each table:

        - ``"areas"``: by ``replacement``, ``ranking`` and ``curve``, the mean over the examples of
          the ``area`` under the curve, and of the quantity as it is, ``whole``, and with all
          candidates replaced, ``none``; in units of the quantity;
        - ``"tokens"``: by ``model`` (``"trained"`` or ``"untrained"``), ``site`` and ``kind``, the
          mean over these tokens of the ``share`` of the mass and of the falls, ``expected`` ("first
          order") and ``measured`` ("each alone"), when one is replaced by the mean; and the
          ``count`` of such tokens per example;
        - ``"shuffled"``: by ``ranking`` and ``group``, the rank ``correlation`` of the scores with
          those of the model with this and all groups before it shuffled.
    """
    components, state, examples = case.components, case.state, case.examples
    total = int(case.candidates[0].sum())
    counts = np.round(np.linspace(0, total, case.steps + 1)).astype(int)
    blind = dict(rankings.blind_scores(components, state, examples))
    untrained = rankings.blind_scores(components, case.untrained, examples)["mass"]
    random = np.random.default_rng(seed).random(case.candidates.shape, np.float32)
    by_kind = rankings.replacements(components, state, case.others)
    areas, tokens = [], []
    for replacement in rankings.REPLACEMENTS:
        given = components, state, examples, by_kind[replacement]
        told = rankings.told_scores(*given)
        scores = blind | {"untrained": untrained, "random": random} | told
        if replacement == "mean":
            tokens += _token_rows(case, "trained", scores)
        for ranking in rankings.RANKINGS:
            found = rankings.curves(*given, case.candidates, counts, scores[ranking])
            means = np.asarray(found, np.float64).mean(0)
            of = {"replacement": replacement, "ranking": ranking}
            ends = {"whole": means[0, 0], "none": means[0, -1]}
            for curve, area in zip(rankings.CURVES, rankings.areas(means, counts), strict=True):
                areas.append(of | {"curve": curve, "area": area} | ends)
    average = rankings.replacements(components, case.untrained, case.others)["mean"]
    told = rankings.told_scores(components, case.untrained, examples, average)
    tokens += _token_rows(case, "untrained", {"mass": untrained} | told)
    return {"areas": areas, "tokens": tokens, "shuffled": _shuffled_rows(case, seed)}


def _token_rows(case: Case, model: str, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Average scores over the tokens of each kind, site by site."""
    rows = []
    for kind in sorted({*case.kinds.ravel()} - {""}):
        own = case.kinds == kind
        for number, label in enumerate(case.labels):
            row = {"model": model, "site": label, "kind": kind, "count": own.sum() / len(own)}
            for column, ranking in MEASURES.items():
                row[column] = float(np.asarray(scores[ranking])[:, number][own].mean())
            rows.append(row)
    return rows


def _shuffled_rows(case: Case, seed: int) -> list[dict[str, Any]]:
    """Correlate scores with those of shuffled weights."""
    rows = []
    for ranking in SHUFFLED:

        def analysis(state: Any, ranking: str = ranking) -> np.ndarray:
            scores = rankings.blind_scores(case.components, state, case.examples)
            return np.asarray(scores[ranking])[case.candidates]

        test = sj.randomization_test(analysis, case.state, case.groups, seed=seed)()
        for group, correlation in zip(test.shuffled, test.correlation, strict=True):
            rows.append({"ranking": ranking, "group": group, "correlation": correlation})
    return rows


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    examples: int = 200,
    data: Sequence[str] = DATA,
    classifiers: Mapping[str, Any] | None = None,
    language_models: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Examine models of all seeds, but for those that are in the tables already.

    Args:
        seeds: of the models.
        out: the folder of the tables, ``faithfulness_areas.csv`` and so on, and of the trainings,
            in ``models``: all with the same options.
        examples: how many of each data.
        data: which of ``DATA``.
        classifiers: options of ``classifier_cases``.
        language_models: options of ``sentence_cases``.
        progress: show progress bars.

    Returns:
        A ``pandas.DataFrame`` by name of the table: the rows of ``examine`` for each ``data`` and
        ``seed``, with the model's ``validation`` accuracy.
    """
    out = pathlib.Path(out)
    tables = {name: ResultTable(out / f"faithfulness_{name}.csv", KEY) for name in TABLES}
    keys = [(name, seed, examples) for name in data for seed in seeds]
    lacking = {key for table in tables.values() for key in table.missing(keys)}
    missing = [key for key in keys if key in lacking]
    cases: dict[tuple[str, int], Case] = {}
    if {TRUE, FALSE} & {name for name, *_ in missing}:
        options = {"progress": progress} | dict(classifiers or {})
        cases |= classifier_cases(seeds, out, examples, **options)
    if SENTENCES in {name for name, *_ in missing}:
        options = {"progress": progress} | dict(language_models or {})
        cases |= sentence_cases(seeds, out, examples, **options)
    for key in tqdm(missing, desc="models", disable=not progress):
        case = cases[key[:2]]
        found = examine(case, key[1])
        run = dict(zip(KEY, key, strict=True)) | {"validation": case.validation}
        for name, table in tables.items():
            for _ in table.missing([key]):
                table.append([run | row for row in found[name]])
    return {name: table.of(keys) for name, table in tables.items()}


def learned(table: Any) -> Any:
    """Keep the rows of models that have learned their task."""
    return table[table["validation"] > LEARNED]


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """State what the flow finds, and what a share does not say, over seeds.

    The control is the untrained models' mass as a ranking and, for single tokens, these models.

    Args:
        tables: of ``grid``, the rows of models that have `learned`.
    """
    areas = tables["areas"]
    found = []
    for data in dict.fromkeys(areas["data"]):
        over_chance = gains(areas, data, "random").T.groupby("ranking").mean()
        for ranking in ("mass", "strongest path"):
            found.append(
                Claim(
                    data,
                    f"By the {ranking}, the flow finds what the model needs better than chance.",
                    "area gained over chance, mean of both curves and all replacements",
                    "",
                    over_chance.loc[ranking].to_numpy(),
                    over_chance.loc["untrained"].to_numpy(),
                )
            )
    tokens = tables["tokens"].set_index(["data", "model", "kind", "site"]).sort_index()
    if TRUE in tokens.index:
        value = tokens.loc[TRUE].xs(("repeat", "value"), level=("kind", "site"))["measured"]
        found.append(
            Claim(
                TRUE,
                "The model needs the repeated token's value, whose share is small.",
                "fall of the logit when it alone is replaced by the mean",
                "",
                *(value[model].to_numpy() for model in MODELS),
            )
        )
    if SENTENCES in tokens.index:
        for column, statement, unit in (
            ("share", "The flow names the subject rather than an attractor.", "share of the mass"),
            ("measured", "The model needs the subject rather than an attractor.", "fall [nats]"),
        ):
            own = tokens.loc[SENTENCES].reset_index()
            own = own.groupby(["model", "kind", "seed"])[column].mean()
            found.append(
                Claim(
                    SENTENCES,
                    statement,
                    f"{unit} per token, subject less attractor, mean over layers",
                    "",
                    *((own[m, "subject"] - own[m, "attractor"]).to_numpy() for m in MODELS),
                )
            )
    return found


def _rows(data: Any, chosen: Any) -> Any:
    return jax.tree.map(lambda array: array[chosen], data)


def main(argv: Sequence[str] | None = None) -> None:
    """Test the rankings over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.faithfulness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    parser.add_argument("--examples", type=int, default=200, help="of each data")
    options = parser.parse_args(argv)
    whole = grid(options.seeds, options.out, examples=options.examples)
    tables = {name: learned(table) for name, table in whole.items()}
    compared = comparisons(tables["areas"])
    for data in DATA:
        for rival in RIVALS:
            print(f"{data}: more faithful than {rival}?")
            print(verdicts(compared, data, rival).to_string(), end="\n\n")
    print(claims_table(claims(tables)).to_string(index=False))
    print(f"Written to {options.out}.")


if __name__ == "__main__":
    main()
