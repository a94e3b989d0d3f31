"""Agreement sentences of other benchmarks: BLiMP, and Gulordava et al.'s nonce sentences.

Neither is tagged. Of both, the sentences are read in which the subject can be told without a
parser.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

from semijax.zoo.agreement import NOUNS, VERB_OF, AgreementSentence, other_number, read_linzen

UNTAGGED = "X"
"""The tag of words whose part of speech the files don't tell."""

DETERMINERS = (
    *("a", "all", "an", "every", "few", "her", "his", "many", "most", "no", "our", "several"),
    *("some", "that", "the", "their", "these", "this", "those"),
)
LINKS = ("about", "by", "of", "that", "who", "which")
"""The words that follow a noun and begin what modifies it, in BLiMP's templates."""

NONCE = {"sing": "NN", "plur": "NNS"}
"""The tags of Gulordava et al.'s subjects."""


def read_sentences(path: str | Path) -> Iterator[AgreementSentence]:
    """Read agreement sentences of any format that is known by the file's name.

    Args:
        path: a ``.jsonl`` is read by `read_blimp`, a ``.tab`` by `read_gulordava`, anything else
            by ``read_linzen``.

    Example:
        >>> import tempfile
        >>> from semijax import zoo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/generated.tsv"
        ...     zoo.write_linzen(zoo.Grammar().sample(7, attractors=0), path)
        ...     len(list(zoo.read_sentences(path)))
        7
    """
    readers = {".jsonl": read_blimp, ".tab": read_gulordava}
    return readers.get(Path(path).suffix, read_linzen)(path)


def read_blimp(path: str | Path) -> Iterator[AgreementSentence]:
    """Read sentences of BLiMP (Warstadt et al. 2020) whose verb agrees with its subject.

    Of each pair, the good sentence is read if the two differ in one word, a verb in the present
    tense; the subject is the sentence's second word, between a determiner and the verb or a
    preposition or relative pronoun; and the word before the verb is the subject, or a common noun
    with a determiner. This noun is the *distractor*, which in the two paradigms
    ``distractor_agreement_*`` has the other number: it is tagged as an attractor there.

    Args:
        path: of a paradigm, such as ``distractor_agreement_relational_noun.jsonl``.

    Raises:
        ValueError: with the file and the line, if a line is not a pair of sentences.

    Example:
        >>> import json, pathlib, tempfile
        >>> from semijax import zoo
        >>> pair = {"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "regular_plural_subject_verb_agreement_1.jsonl")
        ...     _ = path.write_text(json.dumps(pair))
        ...     (sentence,) = zoo.read_blimp(path)
        >>> sentence.words[sentence.subject], sentence.words[sentence.verb]
        ('cats', 'sleep')
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                good, bad = (_words(row[f"sentence_{kind}"]) for kind in ("good", "bad"))
                paradigm = str(row.get("UID", ""))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a pair of sentences.") from error
            if (sentence := _of_pair(good, bad, paradigm)) is not None:
                yield sentence


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+|[^\w\s]", text.lower())


def _of_pair(good: list[str], bad: list[str], paradigm: str) -> AgreementSentence | None:
    different = [n for n, pair in enumerate(zip(good, bad, strict=False)) if pair[0] != pair[1]]
    if len(good) != len(bad) or len(different) != 1 or good[0] not in DETERMINERS:
        return None
    (verb,) = different
    tag = _number_of(good[verb], bad[verb])
    if tag is None or verb < 2 or (verb > 2 and good[2] not in LINKS):
        return None
    tags = [UNTAGGED] * len(good)
    tags[1], tags[verb] = tag, VERB_OF[tag]
    if verb > 2:
        if good[verb - 2] not in DETERMINERS:
            return None
        if paradigm.startswith("distractor_"):
            (tags[verb - 1],) = {*NOUNS} - {tag}
    return AgreementSentence(tuple(good), tuple(tags), 1, verb)


def _number_of(verb: str, wrong: str) -> str | None:
    """Return the tag of nouns that a verb agrees with, where the two forms differ in number."""
    for tag, other in zip(NOUNS, reversed(NOUNS), strict=True):
        back = other_number(wrong, VERB_OF[other])
        if other_number(verb, VERB_OF[tag]) == wrong and back == verb:
            return tag
    return None


def read_gulordava(path: str | Path) -> Iterator[AgreementSentence]:
    r"""Read the nonce sentences of Gulordava et al. (2018) whose subject is a noun.

    Their file tells the subject's position and number, and how many attractors there are, but not
    which words they are: none is tagged. Sentences whose verb agrees with something else (another
    verb, in a coordination) are left out.

    Args:
        path: of ``data/agreement/English/generated.tab``, of tab-separated values.

    Raises:
        ValueError: with the file and the line, if a column is missing or contradicts another.

    Example:
        >>> import pathlib, tempfile
        >>> from semijax import zoo
        >>> row = {
        ...     "pattern": "ADJ__NOUN__VERB", "class": "correct", "correct_number": "plur",
        ...     "sent": "the ideas near it sleeps <eos>", "form": "sleep",
        ...     "len_prefix": "4", "len_context": "3",
        ... }  # fmt: skip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "generated.tab")
        ...     _ = path.write_text("\t".join(row) + "\n" + "\t".join(row.values()))
        ...     (sentence,) = zoo.read_gulordava(path)
        >>> sentence.words[sentence.subject], sentence.words[sentence.verb]
        ('ideas', 'sleep')
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        for row in rows:
            try:
                if row["class"] == "correct" and re.match(r".*__NOUN_", row["pattern"]):
                    yield _nonce(row)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error!r}.") from error


def _nonce(row: dict[str, str]) -> AgreementSentence:
    words = row["sent"].removesuffix("<eos>").split()
    verb, back = int(row["len_prefix"]), int(row["len_context"])
    tag = NONCE[row["correct_number"]]
    # The file's sentence still has the verb of the sentence it was made from.
    words[verb] = row["form"]
    tags = [UNTAGGED] * len(words)
    tags[verb - back], tags[verb] = tag, VERB_OF[tag]
    return AgreementSentence(tuple(words), tuple(tags), verb - back, verb)
