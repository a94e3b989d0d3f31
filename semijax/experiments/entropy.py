"""What the entropy of a language model's paths depends on: Fig. 6a and 7 of Du et al. (2023).

``python -m semijax.experiments.entropy --out FOLDER`` examines the models that
``semijax.experiments.generated`` trained there, or trains them, each beside an untrained one and
one with its weights in random order. Entropies are in nats, per token: of the paths from a token's
embedding to the margin between the verb's two forms, averaged over the tokens of a sentence.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from semijax import zoo
from semijax.experiments import agreement, generated
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.controls import MODELS, controls
from semijax.experiments.results import ResultTable

FILE = "entropy.csv"
"""The name of the table in a grid's folder."""

KEY = ("seed", "sentences", "epochs", "examined", "versions")
"""The columns that tell its runs apart."""

PAPER_CORRELATIONS = (0.18, 0.13, 0.01, 0.11)
"""Spearman's correlations in Fig. 7, by length; App. B.2 calls them minimal."""

PAPER_SLOPE = (277.5 - 269) / (69 - 10)
"""Of Fig. 6a, from its first and its last length, in nats per token."""

BINS = len(PAPER_CORRELATIONS)


def sentence_sets(
    sentences: int, versions: int, *, grammar: zoo.Grammar | None = None, seed: int = 0
) -> tuple[list[zoo.AgreementSentence], list[zoo.AgreementSentence]]:
    """Draw the sentences of Fig. 6a and 7, and sentences that differ in their attractors only.

    Args:
        sentences: how many of the first, as many with 1, 2, 3 and 4 attractors, as in App. B.2.
        versions: how many of the second, each in five versions, of 0 to 4 attractors among the
            four nouns in between: the versions of 0 come first, then those of 1, and so on.
        grammar: ``zoo.Grammar()`` by default.
        seed: of both.
    """
    grammar = zoo.Grammar() if grammar is None else grammar
    drawn = [
        sentence
        for number in (1, 2, 3, 4)
        for sentence in grammar.sample(
            sentences // 4, attractors=number, seed=1000 * seed + 400 + number
        )
    ]
    paired = [
        sentence
        for number in range(5)
        for sentence in grammar.sample(
            versions, attractors=number, intervening=4, seed=1000 * seed + 13
        )
    ]
    return drawn, paired


def entropies(model: zoo.BertForMaskedLM, sentences: Sequence[zoo.AgreementSentence]) -> Any:
    """Measure sentences: a ``agreement.sentence_table`` with the kind and the form of the verb."""
    grammar = zoo.Grammar()
    kept, encoded, reasons = agreement.encodable(sentences, grammar.tokenizer())
    if reasons:
        raise ValueError(f"Some sentences cannot be encoded: {dict(reasons)}.")
    longest = (generated.LENGTH,)  # one shape, compiled once for all models
    batches = agreement.batches(encoded, 16, buckets=longest)
    study = agreement.sentence_values(model, batches, buckets=longest, progress=False)
    return agreement.sentence_table(study, kept, encoded).assign(
        kind=[kind_of_verb(one, grammar) for one in kept],
        form=[one.words[one.verb] for one in kept],
    )


def kind_of_verb(sentence: zoo.AgreementSentence, grammar: zoo.Grammar) -> str:
    """Name the kind of a sentence's verb: ``copula``, ``intransitive`` or ``transitive``."""
    forms = {sentence.words[sentence.verb], sentence.wrong}
    kinds = {
        "copula": grammar.copulas,
        "intransitive": grammar.intransitive,
        "transitive": grammar.transitive,
    }
    (kind,) = (kind for kind, verbs in kinds.items() if forms & {*verbs})
    return kind


def explained(table: Any, columns: Sequence[str]) -> float:
    """Return the share of the entropies' variance that groups explain, adjusted for their number.

    Args:
        table: with a column ``entropy``.
        columns: whose values, one beside the other, are a linear model's groups.
    """
    import pandas

    groups = np.hstack([pandas.get_dummies(table[name]).to_numpy(float) for name in columns])
    values = table["entropy"].to_numpy()
    rest = values - groups @ np.linalg.lstsq(groups, values, rcond=None)[0]
    freedom = len(groups) - np.linalg.matrix_rank(groups)
    return float(1 - np.sum(rest**2) / freedom / np.var(values, ddof=1))


def correlation(a: Any, b: Any) -> float:
    """Return Spearman's correlation of two ``pandas.Series``, NaN if one of them is constant."""
    return a.corr(b, method="spearman") if min(a.nunique(), b.nunique()) > 1 else np.nan


def summary(drawn: Any, paired: Any = None) -> dict[str, float]:
    """Summarise the entropies of one model's sentences, in nats per token.

    Args:
        drawn: of sentences: ``tokens``, ``attractors``, ``entropy``, and perhaps ``kind`` and
            ``form`` of the verb.
        paired: of their versions, as from `sentence_sets`; None for none.

    Returns:
        ``level``, the mean; ``slope``, by length, per token; ``length``, ``length_kind`` and
        ``length_form``, the shares that these explain, the latter two where they are known;
        ``spearman_1`` to ``spearman_4``, the correlations with the number of attractors in quarters
        of the sentences by length, and ``spearman_equal``, at equal length; ``change_1`` to
        ``change_4``, what so many attractors change where all else stays, NaN for no versions.
    """
    import pandas

    ranks = drawn[["attractors", "entropy"]].rank()
    ranks -= ranks.groupby(drawn["tokens"]).transform("mean")
    quarters = drawn.groupby(pandas.qcut(drawn["tokens"].rank(method="first"), BINS))
    correlations = [correlation(own["attractors"], own["entropy"]) for _, own in quarters]
    changes = np.full(5, np.nan)
    if paired is not None:
        versions = paired["entropy"].to_numpy().reshape(5, -1)
        changes = (versions - versions[0]).mean(axis=1)
    known = [name for name in ("kind", "form") if name in drawn]
    return {
        "level": float(drawn["entropy"].mean()),
        "slope": float(np.polyfit(drawn["tokens"], drawn["entropy"], 1)[0]),
        "length": explained(drawn, ["tokens"]),
        **{f"length_{name}": explained(drawn, ["tokens", name]) for name in known},
        **{f"spearman_{n}": float(rho) for n, rho in enumerate(correlations, 1)},
        "spearman_equal": float(ranks["attractors"].corr(ranks["entropy"])),
        **{f"change_{n}": float(changes[n]) for n in range(1, 5)},
    }


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    examined: int = 1000,
    versions: int = 100,
    sentences: int = 10_000,
    epochs: int = 15,
    progress: bool = True,
    **sizes: int,
) -> Any:
    """Examine the models of all seeds, but for those that are in the table already.

    Args:
        seeds: of the models, as for ``generated.train_seeds``.
        out: the folder of the table, ``entropy.csv``, and of the models, in ``models``.
        examined: the number of sentences, as for ``sentence_sets``.
        versions: as for ``sentence_sets``.
        sentences: to train on.
        epochs: at most, of each training.
        progress: show progress bars.
        **sizes: ``layers`` and ``width`` of the models.

    Returns:
        A ``pandas.DataFrame`` with a row per ``seed`` and ``model``: what ``summary`` returns.
    """
    out = pathlib.Path(out)
    table = ResultTable(out / FILE, KEY)
    keys = [(seed, sentences, epochs, examined, versions) for seed in seeds]
    if missing := [*table.missing(keys)]:
        drawn, paired = sentence_sets(examined, versions)
        options = {"sentences": sentences, "epochs": epochs, "progress": progress, **sizes}
        trained = generated.train_seeds(out / "models", seeds, **options)
        by_seed = {seed: model for seed, (model, _) in zip(seeds, trained, strict=True)}
        for key in missing:
            rows = []
            for name, model in controls(by_seed[key[0]], key[0]).items():
                found = entropies(model, [*drawn, *paired])
                numbers = summary(found[: len(drawn)], found[len(drawn) :])
                rows.append(dict(zip(KEY, key, strict=True)) | {"model": name} | numbers)
            table.append(rows)
    return table.of(keys)


def claims(table: Any) -> list[Claim]:
    """State what Fig. 6a and 7 claim over seeds, beside untrained and shuffled models.

    Args:
        table: of ``grid``.
    """
    by_model = {name: table[table["model"] == name].sort_values("seed") for name in MODELS}
    bins = [f"spearman_{n}" for n in range(1, BINS + 1)]
    correlations = ", ".join(f"{rho:.2f}" for rho in PAPER_CORRELATIONS)

    def claim(where: str, statement: str, measure: str, paper: str, columns: list[str]) -> Claim:
        values = (own[columns].mean(axis=1).to_numpy() for own in by_model.values())
        return Claim(where, statement, measure, paper, *values)

    return [
        claim(
            "Fig. 6a",
            "Longer sentences have more entropy per token.",
            "slope [nats per token of length]",
            f"{PAPER_SLOPE:.2f}",
            ["slope"],
        ),
        claim(
            "Fig. 7",
            "More attractors go with more entropy in sentences of similar length.",
            "Spearman's correlation, mean of four bins of length",
            f"{correlations}; minimal (App. B.2)",
            bins,
        ),
        claim(
            "after Fig. 7",
            "More attractors go with more entropy in sentences of equal length.",
            "Spearman's correlation at equal length",
            "not measured",
            ["spearman_equal"],
        ),
        claim(
            "after Fig. 7",
            "Attractors raise the entropy where all else in a sentence stays.",
            "change by four attractors [nats]",
            "not measured",
            ["change_4"],
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid of Fig. 6a and 7 over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.entropy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    options = parser.parse_args(argv)
    print(claims_table(claims(grid(options.seeds, options.out))).to_string(index=False))
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
