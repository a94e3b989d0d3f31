"""The demo: how a trained transformer finds out whether the first token comes back.

``python -m semijax.demo`` is Figure 2 of Du et al. (2023) in a minute. It trains a BERT of one
layer to tell whether a sequence's first token is repeated, prints which branch of the attention the
strongest paths of the gradient take, draws the figure, and tells two of these paths. It needs the
``demo`` extra; ``notebooks/02_first_token_repeated_once.ipynb`` continues from here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import semijax as sj
from semijax import zoo
from semijax.experiments import first_token
from semijax.experiments.branches import BRANCHES, GRANULARITIES, branch_bars, branch_table

ATTEMPTS = 3  # seeds to try until one knows all validation examples
ANSWERS = ("does not come back", "comes back")
TASK = """\
Figure 2 of Du, Torroba Hennigen, Stoehr, Warstadt and Cotterell (2023), on a newly trained model.
The task: does the first token of a sequence come back? To tell, the model has to compare the others
with it. Tokens are of three kinds: the first, a repeat of it, any other.
"""
WHY = """\
The two differ where many weak paths go the same way: inside a matrix product, from one array to the
next, "unit by unit" takes the strongest path, and "array by array" adds all of them up."""
MEANING = {
    "element": "unit by unit, as in Eq. 5 of the paper",
    "op": "array by array, as in the paper's code",
}


def trained_model(
    splits: zoo.Splits, folder: Path, seed: int, epochs: int
) -> zoo.BertForSequenceClassification:
    """Return the model of the first seed that gets all validation examples right, or else the best.

    Trainings are saved in ``folder``; those that are already there are read.
    """
    runs = []
    for attempt in range(seed, seed + ATTEMPTS):
        checkpoint = folder / f"training_{attempt}.msgpack"
        print(f"Training on {len(splits.train.labels):,} sequences, seed {attempt} ({checkpoint}).")
        model, history = first_token.trained_model(
            splits, attempt, epochs=epochs, checkpoint=checkpoint
        )
        print(
            f"After {len(history.losses)} epochs, {history.scores[-1]:.2%} of the validation "
            "sequences are right."
        )
        runs.append((history.scores[-1], model))
        if history.reached:
            break
    else:
        print(f"None of {ATTEMPTS} seeds gets all of them right; going on with the best.")
    return max(runs, key=lambda run: run[0])[1]


def strongest_path(
    model: zoo.BertForSequenceClassification, tokens: np.ndarray, label: int, position: int
) -> sj.Path:
    """Return the path of the largest weight from a token's embedding to the logit of a label.

    Args:
        model: the classifier.
        tokens: int ``[length]``.
        label: whose logit.
        position: the token's.
    """

    def logit(embeddings: jax.Array) -> jax.Array:
        return model.classify(model.bert.encoder(embeddings))[label]

    embeddings = model.bert.embeddings(tokens)
    best = sj.semiring_grad(logit, sj.MaxProduct())(embeddings)[position]
    with sj.scopes(model):
        source = (0, (position, int(best.argmax())))
        return sj.top_paths(logit, by="max", source=source)(embeddings)[0]


def as_sentence(path: sj.Path, tokens: np.ndarray, label: int) -> str:
    """Tell a path from an embedded token to a logit as a sentence."""
    position, unit = path.nodes[0].index
    first = path.nodes[1].scope.rpartition("/")[2]
    branch = f"as a {first}" if first in BRANCHES else "by the skip connection"
    return (
        f"The strongest path from token {tokens[position]} at position {position} starts at its "
        f"hidden unit {unit}, leaves {branch}, takes {path.length} edges and raises the logit of "
        f'"token {tokens[0]} {ANSWERS[label]}" by {path.weight_text} per unit: '
        f"{path.collapse(depth=6)!r}."
    ).replace(f"{zoo.BertForSequenceClassification.__name__}/", "")


def _means(values: Any) -> Any:
    means = values.pivot(index="kind", columns="branch", values="mean")
    kinds = [*first_token.KINDS, *means.index.difference(first_token.KINDS)]
    return means.loc[kinds, [*BRANCHES]].rename_axis(index=None, columns=None)


def table(values: Any) -> str:
    """Return the mean branch values of one granularity as text, one row per kind of token."""
    return _means(values).to_string(float_format="%.4f")


def winners(values: Any) -> str:
    """Say by which branch each kind of token has the largest mean."""
    largest = _means(values).idxmax(axis=1)
    return f"Largest: {', '.join(f'{kind} by {branch}' for kind, branch in largest.items())}."


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m semijax.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=4, help="of the first training")
    parser.add_argument("--epochs", type=int, default=42, help="at most so many per training")
    parser.add_argument("--sequences", type=int, default=10_000, help="to generate in all")
    options = parser.parse_args(argv)

    print(TASK)
    splits = zoo.split(first_token.TASK.sample(options.sequences))
    model = trained_model(splits, options.out, options.seed, options.epochs)
    print(f"{float(zoo.accuracy(model, splits.test)):.2%} of the test sequences are right.")

    values = branch_table(first_token.branch_values(model, splits.test))
    for granularity in GRANULARITIES:
        own = values[values["granularity"] == granularity]
        how = MEANING[granularity]
        print(f"\nBy which branch does the strongest path leave a token, {how}?")
        print(table(own))
        print(winners(own))
        picture = options.out / f"branches_{granularity}.png"
        branch_bars(own, first_token.KINDS, title=f"The strongest path, {how}").save(picture)
        print(f"Drawn in {picture}.")

    print(f"\n{WHY}")
    example = int(np.argmax(splits.test.labels == 1))
    tokens = splits.test.tokens[example]
    repeat = int(np.argmax(tokens[1:] == tokens[0])) + 1
    print(f"\nAn example: {' '.join(map(str, tokens))}")
    for position in (0, repeat):
        print(as_sentence(strongest_path(model, tokens, 1, position), tokens, 1))


if __name__ == "__main__":
    main()
