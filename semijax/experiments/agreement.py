"""Fig. 4, 6a and 7: the branches by which a masked verb knows its subject.

``python -m semijax.experiments.agreement SENTENCES CHECKPOINT --out FOLDER`` examines a BERT on
subject-verb agreement as Du et al. (2023, §5.2) do: by how much it prefers the right form of a
masked verb to the wrong one, in sentences of Linzen, Dupoux and Goldberg (2016). It may be killed
and started again. Needs the ``demo`` extra.
"""

from __future__ import annotations

import argparse
import collections
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

import semijax as sj
from semijax import zoo
from semijax.experiments.branches import (
    ALL,
    GRANULARITIES,
    branch_curves,
    branch_study,
    branch_table,
)
from semijax.experiments.controls import untrained_like

PAPER = {1: 829, 2: 131, 3: 33, 4: 7}
"""The number of sentences in the paper, by number of attractors."""

GROUPS = (ALL, "subject", "attractor")
"""The kinds of tokens in Fig. 4."""

PAPER_CONFIG = zoo.BertConfig(
    hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048
)
"""The sizes of the paper's BERT."""

REFERENCE_SECONDS = 358.0
"""The paper's code's time for one sentence of 16 tokens, measured on two cores, in float64."""

WORDS = "*/word_embeddings"
"""The site where the sentences' own statistics are read: the embedded words."""

PER_TOKEN: dict[str, sj.Semiring] = {"gradient": sj.SumProduct(), "entropy": sj.Entropy()}
"""The semirings read there."""

BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""The lengths that sentences are padded to."""

PADDING: dict[str, Any] = {"pad": 0, "axis": 1, "buckets": BUCKETS}
"""The options by which ``run_study`` pads batches of them."""


class Batch(NamedTuple):
    """Encoded sentences, padded with zeros to one length.

    Attributes:
        ids: int32 ``[batch, length]``, the tokens, the verb replaced by ``[MASK]``.
        kinds: int32 ``[batch, length]``, what each token is, as a place in ``zoo.KINDS``.
        attention_mask: bool ``[batch, length]``, False where there is no token.
        mask: int32 ``[batch]``, the position of ``[MASK]``.
        right: int32 ``[batch]``, the id of the verb.
        wrong: int32 ``[batch]``, the id of its other number.
        sentence: int32 ``[batch]``, which sentence it is; -1 for one that only fills the batch.
    """

    ids: np.ndarray
    kinds: np.ndarray
    attention_mask: np.ndarray
    mask: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    sentence: np.ndarray


def batches(
    encoded: Sequence[zoo.Encoded], batch_size: int, *, buckets: Sequence[int] = BUCKETS
) -> Iterator[Batch]:
    """Put sentences of about the same length together, for few shapes and little padding.

    Args:
        encoded: the sentences; one is known by its place here.
        batch_size: of each batch; where there are too few sentences, the last is repeated as
            sentence -1.
        buckets: sentences padded to the same one of these lengths go together.
    """
    by_bucket = collections.defaultdict(list)
    for number, sentence in enumerate(encoded):
        by_bucket[sum(length < len(sentence.ids) for length in buckets)].append(number)
    for _, numbers in sorted(by_bucket.items()):
        for start in range(0, len(numbers), batch_size):
            own = numbers[start : start + batch_size]
            filled = [*own, *[own[-1]] * (batch_size - len(own))]
            yield _batch([encoded[n] for n in filled], [*own, *[-1] * (batch_size - len(own))])


def _batch(encoded: Sequence[zoo.Encoded], numbers: Sequence[int]) -> Batch:
    longest = max(len(one.ids) for one in encoded)

    def padded(rows: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
        return np.stack([np.pad(row, (0, longest - len(row))) for row in rows]).astype(dtype)

    def numbered(values: Iterable[int]) -> np.ndarray:
        return np.array([*values], np.int32)

    return Batch(
        padded((one.ids for one in encoded), np.int32),
        padded((one.kinds for one in encoded), np.int32),
        padded((np.ones(len(one.ids)) for one in encoded), bool),
        numbered(one.mask for one in encoded),
        numbered(one.right for one in encoded),
        numbered(one.wrong for one in encoded),
        numbered(numbers),
    )


def kinds(batch: Batch) -> np.ndarray:
    """Name each token's kind, one of ``zoo.KINDS``, str ``[batch, length]``; ``""`` for none."""
    is_token = batch.attention_mask & (batch.sentence >= 0)[:, None]
    return np.where(is_token, np.array(zoo.KINDS, object)[batch.kinds], "")


def padded(batch: Batch, length: int) -> Batch:
    """Pad a batch to a length, in tokens."""
    missing = length - batch.ids.shape[1]
    return jax.tree.map(
        lambda array: np.pad(array, ((0, 0), (0, missing))) if array.ndim == 2 else array, batch
    )


def margin(model: Any, example: Batch) -> jax.Array:
    """Return the logit of the right verb less that of the wrong one, in nats.

    Args:
        model: the masked language model; or another module with an encoder, ``bert``, and with
            ``predict``, from a hidden state to logits, whose classes the example names.
        example: one sentence, a ``Batch`` without its first axis.
    """
    hidden = model.bert(example.ids, example.attention_mask)
    logits = model.predict(hidden[example.mask])
    return logits[example.right] - logits[example.wrong]


def branch_values(model: nnx.Module, data: Iterable[Batch], **options: Any) -> sj.Study:
    """Find the branches that the strongest paths to the margin take, by layer and kind of token.

    Args:
        model: as for `margin`.
        data: the sentences, as from ``batches``.
        **options: of ``branch_study`` and ``run_study``, such as ``checkpoint``.
    """
    options = PADDING | options
    return branch_study(model, margin, data, kinds, **options)


def sentence_values(model: nnx.Module, data: Iterable[Batch], **options: Any) -> sj.Study:
    """Measure each sentence's margin, and the means over its tokens of gradient and entropy.

    Both are by a token's embedding: the Euclidean norm of the gradient, and the entropy of all
    paths from its hidden units, in nats (Du et al. 2023, Eq. 6). (The *sum* of the derivatives over
    hidden units is 0 in any BERT, whose embeddings go into a layer normalization.)

    Args:
        model: as for `margin`.
        data: the sentences, as from ``batches``.
        **options: of ``run_study``, such as ``checkpoint``.

    Returns:
        A study of ``"margin"``, ``"gradient"`` and ``"entropy"``, grouped by sentence.
    """
    structure, state = nnx.split(model)

    def sentence_statistics(batch: Batch, mask: Any = None) -> dict[str, jax.Array]:
        return _sentence_statistics(structure, state, batch)  # which has its own mask

    def statistic(name: str) -> Callable[[Any, Batch], np.ndarray]:
        return lambda output, batch: output[name][batch.sentence >= 0]

    with sj.scopes(model):
        return sj.run_study(
            sentence_statistics,
            data,
            reducers={name: statistic(name) for name in ("margin", *PER_TOKEN)},
            group_by=lambda batch: batch.sentence[batch.sentence >= 0],
            jit=False,
            **(PADDING | options),
        )


@functools.partial(jax.jit, static_argnums=0)
def _sentence_statistics(structure: Any, state: Any, batch: Batch) -> dict[str, jax.Array]:
    quantity = functools.partial(margin, nnx.merge(structure, state))

    def of_one(example: Batch) -> dict[str, jax.Array]:
        found = sj.site_grads(quantity, PER_TOKEN, WORDS)(example)
        (gradient,), (elements,) = found["gradient"].values(), found["entropy"].elements.values()
        entropy = PER_TOKEN["entropy"]
        per_token = {
            "gradient": jnp.linalg.norm(gradient, axis=-1),
            "entropy": entropy.readout(sj.aggregate(elements, entropy, -1)),
        }
        means = {
            name: jnp.mean(own, where=example.attention_mask) for name, own in per_token.items()
        }
        return {"margin": quantity(example), **means}

    return jax.vmap(of_one)(batch)


def sentence_table(
    study: sj.Study,
    sentences: Sequence[zoo.AgreementSentence],
    encoded: Sequence[zoo.Encoded],
) -> Any:
    """Make a ``pandas.DataFrame`` of what ``sentence_values`` found, with a row per sentence.

    Its columns: ``text``, ``tokens`` (how many), ``attractors`` (how many), ``margin``,
    ``correct``, ``gradient``, ``entropy``.
    """
    import pandas

    def column(name: str) -> np.ndarray:
        return np.array([study[name][number].mean for number in range(len(sentences))])

    margins = column("margin")
    return pandas.DataFrame(
        {
            "text": [" ".join(sentence.words) for sentence in sentences],
            "tokens": [len(one.ids) for one in encoded],
            "attractors": [len(sentence.attractors) for sentence in sentences],
            "margin": margins,
            "correct": margins > 0,
            "gradient": column("gradient"),
            "entropy": column("entropy"),
        }
    )


def encodable(
    sentences: Iterable[zoo.AgreementSentence], tokenizer: Tokenizer
) -> tuple[list[zoo.AgreementSentence], list[zoo.Encoded], collections.Counter[str]]:
    """Encode the sentences that can be examined, and count why the others cannot."""
    kept, encoded, reasons = [], [], collections.Counter()
    for sentence in sentences:
        found = zoo.encode(sentence, tokenizer)
        if isinstance(found, str):
            reasons[found] += 1
        else:
            kept.append(sentence)
            encoded.append(found)
    return kept, encoded, reasons


def examine(
    model: zoo.BertForMaskedLM,
    sentences: Sequence[zoo.AgreementSentence],
    encoded: Sequence[zoo.Encoded],
    *,
    folder: str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    granularities: Sequence[str] = GRANULARITIES,
    progress: bool = True,
) -> tuple[Any, Any]:
    """Run the whole analysis: gradient, strongest paths and entropy of all sentences.

    Args:
        model: the masked language model.
        sentences: what ``encodable`` kept.
        encoded: the same, encoded.
        folder: where the state is kept, so that a killed run can go on, and where the tables are
            written, as ``branches.csv`` and ``sentences.csv``.
        batch_size: how many sentences are examined at a time.
        granularities: of ``branch_study``.
        progress: show progress bars.

    Returns:
        A ``branch_table`` and a ``sentence_table``.
    """
    path = None if folder is None else pathlib.Path(folder)
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)

    def options(name: str) -> dict[str, Any]:
        checkpoint = None if path is None else path / f"{name}.json"
        # The functions are the same for every model: this tells a checkpoint whose it is.
        provenance = {"model": fingerprint(model)}
        return {"checkpoint": checkpoint, "provenance": provenance, "progress": progress}

    of_branches = branch_values(
        model, batches(encoded, batch_size), granularities=granularities, **options("branches")
    )
    of_sentences = sentence_values(model, batches(encoded, batch_size), **options("sentences"))
    tables = branch_table(of_branches), sentence_table(of_sentences, sentences, encoded)
    if path is not None:
        for name, table in zip(("branches", "sentences"), tables, strict=True):
            table.to_csv(path / f"{name}.csv", index=False)
    return tables


def seconds_per_sentence(
    config: zoo.BertConfig, *, tokens: int = 16, sentences: int = 64, batch_size: int = 16
) -> float:
    """Time the pipeline, once it is compiled: gradient, maximum ("op") and entropy.

    Args:
        config: of a model with random weights.
        tokens: of each sentence, which are random too.
        sentences: how many are examined.
        batch_size: how many at a time; it must divide ``sentences``.
    """
    model = zoo.BertForMaskedLM(config, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    kinds = np.full(tokens, zoo.KINDS.index("other"), np.int32)
    encoded = [
        zoo.Encoded(draw.integers(0, config.vocab_size, tokens, np.int32), kinds, 0, 1, 2)
        for _ in range(sentences)
    ]

    def whole(encoded: Sequence[zoo.Encoded]) -> None:
        branch_values(model, batches(encoded, batch_size), granularities=("op",), progress=False)
        sentence_values(model, batches(encoded, batch_size), progress=False)

    whole(encoded[:batch_size])
    start = time.perf_counter()
    whole(encoded)
    return (time.perf_counter() - start) / sentences


def fingerprint(model: nnx.Module) -> str:
    """Return a short text that differs if a model's parameters do."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis of a checkpoint, and of the same architecture with random weights.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.agreement", description=__doc__
    )
    parser.add_argument("sentences", type=pathlib.Path, help="Linzen et al.'s TSV, or .tsv.gz")
    parser.add_argument("checkpoint", type=pathlib.Path, help="a folder in Hugging Face's format")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument(
        "--attractors",
        type=int,
        nargs="+",
        default=[*PAPER.values()],
        metavar="N",
        help="how many sentences of 1, 2, … attractors to draw",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the random weights")
    parser.add_argument("--batch-size", type=int, default=16, help="sentences at a time")
    options = parser.parse_args(argv)

    model = zoo.load_checkpoint(zoo.BertForMaskedLM, options.checkpoint)
    tokenizer = zoo.load_tokenizer(options.checkpoint)
    numbers = dict(enumerate(options.attractors, start=1))
    # As in the paper: no noun between subject and verb has the subject's number.
    candidates = (s for s in zoo.read_linzen(options.sentences) if s.intervening == s.attractors)
    drawn = zoo.sample_by_attractors(candidates, numbers, seed=options.seed)
    sentences, encoded, reasons = encodable(drawn, tokenizer)
    print(f"{len(drawn)} sentences drawn, {len(sentences)} of them examined.")
    for reason, count in reasons.most_common():
        print(f"  {count} left out: {reason}")
    models = {"trained": model, "untrained": untrained_like(model, options.seed)}
    for name, examined in models.items():
        folder = options.out / name
        branches, by_sentence = examine(
            examined, sentences, encoded, folder=folder, batch_size=options.batch_size
        )
        print(f"\nThe {name} model gets {by_sentence['correct'].mean():.1%} of the verbs right.")
        for granularity in GRANULARITIES:
            for group in GROUPS:
                own = branches[
                    (branches["kind"] == group) & (branches["granularity"] == granularity)
                ]
                if own.empty:
                    continue
                print(f"\nMean branch values of {group}, by layer; granularity {granularity!r}:")
                print(own.pivot(index="layer", columns="branch", values="mean").to_string())
                title = f"{group} ({name} model)"
                picture = folder / f"branches_{granularity}_{group.replace(' ', '_')}.png"
                branch_curves(own, title=title).save(picture)
        print(f"\nTables and pictures are in {folder}.")


if __name__ == "__main__":
    main()
