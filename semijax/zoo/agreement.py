"""Sentences whose verb agrees with its subject: read, written, and encoded for a masked model."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import numpy as np
from tokenizers import Tokenizer

KINDS = ("special", "other", "subject", "attractor", "mask")
"""The kinds of tokens in an encoded sentence, by number; padding with 0 is special, too."""

COLUMNS = (
    *("sentence", "orig_sentence", "pos_sentence", "subj", "verb", "subj_pos", "has_rel"),
    *("has_nsubj", "verb_pos", "subj_index", "verb_index", "n_intervening", "last_intervening"),
    *("n_diff_intervening", "distance", "max_depth", "all_nouns", "nouns_up_to_verb"),
)
"""The columns of Linzen et al.'s file."""

READ = ("orig_sentence", "pos_sentence", "subj_index", "verb_index")
"""The columns that say everything about a sentence."""

CHECKED = (
    *("subj", "verb", "subj_pos", "verb_pos"),
    *("n_intervening", "last_intervening", "n_diff_intervening", "distance"),
)
"""The columns that repeat it, and must agree."""

NOUNS = ("NN", "NNS")
VERB_OF = {"NN": "VBZ", "NNS": "VBP"}  # what agrees with a singular and with a plural noun


@dataclasses.dataclass(frozen=True)
class AgreementSentence:
    """A sentence with a noun as subject and a verb in the present tense that agrees with it.

    Attributes:
        words: the sentence.
        tags: the words' parts of speech, as the Penn Treebank calls them; common nouns are ``"NN"``
            and ``"NNS"``, verbs in the present tense ``"VBZ"`` and ``"VBP"``.
        subject: the position in ``words`` of the subject's head noun.
        verb: the position of the verb.

    Raises:
        ValueError: if these contradict one another.

    Example:
        >>> words = ("the", "key", "to", "the", "cabinets", "is", "here", ".")
        >>> tags = ("DT", "NN", "IN", "DT", "NNS", "VBZ", "RB", ".")
        >>> sentence = AgreementSentence(words, tags, subject=1, verb=5)
        >>> sentence.right, sentence.wrong, [words[n] for n in sentence.attractors]
        ('is', 'are', ['cabinets'])
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    subject: int
    verb: int

    def __post_init__(self) -> None:
        if len(self.words) != len(self.tags):
            raise ValueError(f"{len(self.words)} words have {len(self.tags)} tags.")
        for text in (*self.words, *self.tags):
            if not text or " " in text:
                raise ValueError(f"A word or tag must be neither empty nor hold spaces: {text!r}.")
        if not 0 <= self.subject < self.verb < len(self.words):
            raise ValueError(
                f"A subject at {self.subject} and its verb at {self.verb} must follow one another "
                f"in {len(self.words)} words."
            )
        subject, verb = self.tags[self.subject], self.tags[self.verb]
        if subject not in NOUNS:
            raise ValueError(
                f"The subject {self.words[self.subject]!r} is tagged {subject}, which is none of "
                f"{', '.join(NOUNS)}."
            )
        if verb != VERB_OF[subject]:
            raise ValueError(
                f"The verb {self.right!r} is tagged {verb}; with the subject "
                f"{self.words[self.subject]!r}, {subject}, it must be {VERB_OF[subject]}."
            )

    @property
    def right(self) -> str:
        """The verb, in the number of its subject."""
        return self.words[self.verb]

    @property
    def wrong(self) -> str | None:
        """The verb in the other number; None where ``other_number`` doesn't know it."""
        return other_number(self.right, self.tags[self.verb])

    @property
    def intervening(self) -> tuple[int, ...]:
        """The positions of the common nouns between the subject and the verb."""
        return tuple(n for n in range(self.subject + 1, self.verb) if self.tags[n] in NOUNS)

    @property
    def attractors(self) -> tuple[int, ...]:
        """The positions of the intervening nouns whose number is not the subject's."""
        number = self.tags[self.subject]
        return tuple(n for n in self.intervening if self.tags[n] != number)


def read_linzen(path: str | Path) -> Iterator[AgreementSentence]:
    """Read the sentences of Linzen, Dupoux and Goldberg (2016), one by one.

    Their file ``agr_50_mostcommon_10K.tsv`` holds 1.6 million sentences of Wikipedia. All words are
    read, including those that its column ``sentence`` replaces by their tags.

    Args:
        path: tab-separated values in UTF-8 with their header; compressed if it ends in ``.gz``.

    Yields:
        The sentences in the file's order.

    Raises:
        ValueError: with the file and the line, if a column is missing or a line contradicts itself.

    Example:
        The sentences that Goldberg (2019) and Du et al. (2023) draw theirs from, whose intervening
        nouns are all attractors, and as many of each kind as the latter have::

            sentences = (s for s in read_linzen(path) if s.intervening == s.attractors)
            sample = sample_by_attractors(sentences, {1: 829, 2: 131, 3: 33, 4: 7})

        A generated file in the same format:

        >>> import tempfile
        >>> from semijax import zoo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/generated.tsv"
        ...     zoo.write_linzen(zoo.Grammar().sample(7, attractors=1), path)
        ...     sum(len(sentence.attractors) for sentence in zoo.read_linzen(path))
        7
    """
    with _open(path, "r") as file:
        rows = csv.DictReader(file, delimiter="\t")
        missing = [column for column in READ if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}.")
        for row in rows:
            try:
                yield _sentence(row)
            except ValueError as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def write_linzen(sentences: Iterable[AgreementSentence], path: str | Path) -> None:
    """Write sentences in the format that ``read_linzen`` reads.

    The columns ``has_rel``, ``has_nsubj`` and ``max_depth``, which need a parse, stay empty, and
    ``sentence`` holds all words.

    Args:
        sentences: what to write.
        path: the file; it is compressed if it ends in ``.gz``.

    Example:
        >>> import tempfile
        >>> from semijax import zoo
        >>> sentences = zoo.Grammar().sample(7, attractors=(1, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     zoo.write_linzen(sentences, f"{folder}/generated.tsv.gz")
        ...     list(zoo.read_linzen(f"{folder}/generated.tsv.gz")) == sentences
        True
    """
    with _open(path, "w") as file:
        rows = csv.DictWriter(file, COLUMNS, delimiter="\t")
        rows.writeheader()
        rows.writerows(map(_row, sentences))


def _open(path: str | Path, mode: str) -> TextIO:
    opener = gzip.open if str(path).endswith(".gz") else open
    return cast(TextIO, opener(path, mode + "t", encoding="utf-8", newline=""))


def _sentence(row: Mapping[str, str | None]) -> AgreementSentence:
    if None in row or None in row.values():
        raise ValueError("it does not have as many columns as the header.")
    given = cast(Mapping[str, str], row)
    # Only at spaces: a word of the corpus may hold other white space.
    words, tags = (tuple(given[column].split(" ")) for column in READ[:2])
    subject, verb = (int(given[column]) - 1 for column in READ[2:])
    sentence = AgreementSentence(words, tags, subject, verb)
    expected = _row(sentence)
    for column in CHECKED:
        # In the corpus the verb alone may have kept its capitals.
        if column in given and given[column].lower() != expected[column].lower():
            raise ValueError(
                f"{column} is {given[column]!r}, but by the words and tags {expected[column]!r}."
            )
    return sentence


def _row(sentence: AgreementSentence) -> dict[str, str]:
    words, tags = sentence.words, sentence.tags
    subject, verb, intervening = sentence.subject, sentence.verb, sentence.intervening
    nouns = [n for n, tag in enumerate(tags) if tag in NOUNS]
    return {
        "sentence": " ".join(words),
        "orig_sentence": " ".join(words),
        "pos_sentence": " ".join(tags),
        "subj": words[subject],
        "verb": words[verb],
        "subj_pos": tags[subject],
        "verb_pos": tags[verb],
        "subj_index": str(subject + 1),
        "verb_index": str(verb + 1),
        "n_intervening": str(len(intervening)),
        "last_intervening": tags[intervening[-1]] if intervening else "na",
        "n_diff_intervening": str(len(sentence.attractors)),
        "distance": str(verb - subject),
        "all_nouns": " ".join(words[n] for n in nouns),
        "nouns_up_to_verb": " ".join(words[n] for n in nouns if n < verb),
    }


def sample_by_attractors(
    sentences: Iterable[AgreementSentence], counts: Mapping[int, int], *, seed: int = 0
) -> list[AgreementSentence]:
    """Draw sentences without replacement, a given count for each number of attractors.

    Args:
        sentences: what to draw from, read once; no more is kept in memory than is drawn.
        counts: how many sentences to draw, by their number of attractors.
        seed: equal arguments and seeds give equal samples.

    Returns:
        The sample, in the order of ``sentences``.

    Raises:
        ValueError: if there are not enough.

    Source: Vitter 1985, Algorithm R, for each number of attractors.

    Example:
        >>> from semijax.zoo.grammar import Grammar
        >>> sentences = Grammar().sample(60, attractors=range(5))
        >>> sample = sample_by_attractors(sentences, {1: 7, 4: 2})
        >>> sorted(len(sentence.attractors) for sentence in sample)
        [1, 1, 1, 1, 1, 1, 1, 4, 4]
    """
    rng = np.random.default_rng(seed)
    seen = dict.fromkeys(counts, 0)
    kept: dict[int, list[tuple[int, AgreementSentence]]] = {number: [] for number in counts}
    for place, sentence in enumerate(sentences):
        number = len(sentence.attractors)
        if number not in counts:
            continue
        seen[number] += 1
        if seen[number] <= counts[number]:
            kept[number].append((place, sentence))
        elif (slot := rng.integers(seen[number])) < counts[number]:
            kept[number][slot] = (place, sentence)
    for number, count in counts.items():
        if seen[number] < count:
            raise ValueError(
                f"There are only {seen[number]} sentences with {number} attractors, not {count}."
            )
    drawn = [pair for pairs in kept.values() for pair in pairs]
    return [sentence for _, sentence in sorted(drawn, key=lambda pair: pair[0])]


# Third person singular and plural: irregular verbs, and regular ones that inflect misspells.
_TABLE = (
    "is/are has/have gasses/gas quizzes/quiz aches/ache belies/belie biases/bias blitzes/blitz "
    "buses/bus caches/cache canvases/canvas caucuses/caucus choruses/chorus dies/die echoes/echo "
    "finesses/finesse focuses/focus lies/lie refocuses/refocus ties/tie underlies/underlie "
    "unties/untie vetoes/veto vies/vie waltzes/waltz"
)
_PAIRS = [pair.split("/") for pair in _TABLE.split()]
_PLURALS = {singular: plural for singular, plural in _PAIRS}
_SINGULARS = {plural: singular for singular, plural in _PAIRS}


@functools.cache
def other_number(verb: str, tag: str) -> str | None:
    """Return the form of a present-tense verb that agrees with nouns of the other number.

    Args:
        verb: the verb, in lower case.
        tag: ``"VBZ"`` if it is in the third person singular, like *likes*; ``"VBP"`` for *like*.

    Returns:
        The other form; None if it isn't known, such as for *'s*, which is *is* or *has*.

    Raises:
        ValueError: if the tag is another one.

    Example:
        >>> other_number("flies", "VBZ"), other_number("have", "VBP"), other_number("'s", "VBZ")
        ('fly', 'has', None)
    """
    if tag not in VERB_OF.values():
        raise ValueError(f"A verb in the present tense is tagged VBZ or VBP, not {tag}.")
    if not verb.replace("-", "").isalpha():
        return None
    if tag == "VBZ":
        plural = _PLURALS.get(verb) or _english().plural_verb(verb)
        return plural if plural != verb else None
    singular = _SINGULARS.get(verb) or _third_person(verb)
    return singular if other_number(singular, "VBZ") == verb else None


def _third_person(verb: str) -> str:
    if re.search("(s|x|z|ch|sh|[^aeiou]o)$", verb):
        return verb + "es"
    if re.search("[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + "s"


def plural_noun(noun: str) -> str:
    """Return the plural of a noun in the singular."""
    return _english().plural_noun(noun)


@functools.cache
def _english() -> Any:
    import inflect  # here, as it takes seconds

    return inflect.engine()


class Encoded(NamedTuple):
    """A sentence as a masked language model reads it.

    Attributes:
        ids: int32 ``[length]``, the tokens, the verb replaced by ``[MASK]``.
        kinds: int32 ``[length]``, what each token is, as a place in ``KINDS``.
        mask: the position of ``[MASK]``.
        right: the id of the verb.
        wrong: the id of its other number.

    Example:
        >>> from semijax import zoo
        >>> grammar = zoo.Grammar()
        >>> (sentence,) = grammar.sample(1, attractors=1, seed=0)
        >>> encoded = zoo.encode(sentence, grammar.tokenizer())
        >>> " ".join(sentence.words)
        'the rabbit that our judges help seems clever .'
        >>> encoded.ids.shape, zoo.KINDS[encoded.kinds[encoded.mask]]
        ((11,), 'mask')
    """

    ids: np.ndarray
    kinds: np.ndarray
    mask: int
    right: int
    wrong: int


def encode(
    sentence: AgreementSentence, tokenizer: Tokenizer, *, split_nouns: bool = False
) -> Encoded | str:
    """Encode a sentence with its verb masked.

    Args:
        sentence: the sentence.
        tokenizer: one of BERT's kind, as `load_tokenizer` returns it: it has ``[MASK]`` and
            ``[UNK]``, and neither pads nor truncates. Words are given to it one by one, so that
            every token is known to belong to one of them.
        split_nouns: whether the subject and the attractors may consist of several tokens, which
            then all have that label. By default, as in Du et al. (2023), they may not.

    Returns:
        The tokens; or, where the sentence can't be used, why: one of a few fixed texts.

    Raises:
        ValueError: if the tokenizer has no ``[MASK]``, pads or truncates.

    Example:
        >>> from semijax.zoo.grammar import Grammar
        >>> grammar = Grammar()
        >>> (sentence,) = grammar.sample(1, attractors=2)
        >>> encoded = encode(sentence, grammar.tokenizer())
        >>> [KINDS[kind] for kind in encoded.kinds].count("attractor")
        2
    """
    mask, unknown = tokenizer.token_to_id("[MASK]"), tokenizer.token_to_id("[UNK]")
    if mask is None or tokenizer.padding or tokenizer.truncation:
        raise ValueError("A tokenizer must have [MASK], and neither pad nor truncate.")
    if sentence.wrong is None:
        return "the other form of the verb isn't known"
    encoding = tokenizer.encode(list(sentence.words), is_pretokenized=True)
    ids = np.array(encoding.ids, np.int32)
    words = np.array([-1 if word is None else word for word in encoding.word_ids])
    right = ids[words == sentence.verb]
    wrong = tokenizer.encode([sentence.wrong], is_pretokenized=True, add_special_tokens=False).ids
    if any(len(form) != 1 or unknown in form for form in (right, wrong)):
        return "a form of the verb is not one token"
    for noun in (sentence.subject, *sentence.attractors):
        tokens = ids[words == noun]
        if not len(tokens) or unknown in tokens:
            return "the subject or an attractor is not in the vocabulary"
        if len(tokens) > 1 and not split_nouns:
            return "the subject or an attractor is several tokens"
    kinds = np.select(
        [
            words == -1,
            words == sentence.subject,
            np.isin(words, sentence.attractors),
            words == sentence.verb,
        ],
        [KINDS.index(kind) for kind in ("special", "subject", "attractor", "mask")],
        KINDS.index("other"),
    ).astype(np.int32)
    (place,) = np.flatnonzero(words == sentence.verb)
    ids[place] = mask
    return Encoded(ids, kinds, int(place), int(right[0]), wrong[0])
