"""A small generated language in which verbs agree with subjects across other nouns."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import operator
import random
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from semijax.zoo.agreement import NOUNS, VERB_OF, AgreementSentence, other_number, plural_noun
from semijax.zoo.tokenization import SPECIAL

POSSESSIVES = ("my", "your", "his", "her", "its", "our", "their")

Tagged = tuple[str, str]  # a word and its tag


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A grammar of sentences like *today , the fox behind our goats that my dog chases is old*.

    The language, with ``a?`` for an optional part::

        sentence      = opening? phrase verb .
        opening       = opener , | preposition simple ,
        phrase        = simple modifier*
        simple        = determiner adjective? noun
        modifier      = preposition phrase
                      | that phrase transitive
                      | that transitive phrase
        verb          = transitive simple | intransitive adverb | copula adjective

    The verb agrees with the noun of its phrase. In a relative clause, the verb of ``that phrase
    transitive`` agrees with the noun after *that*, and that of ``that transitive phrase`` with the
    noun before, whose number it thus shows a second time. Nothing else shows a number: determiners
    and adjectives are the same in both. Modifiers nest, and follow one another; all nouns between
    the subject and its verb are in them, and those in an opening or after the verb are not.

    A sentence with ``intervening`` nouns between the subject and its verb has at most
    ``13 + 5 * intervening`` words, each a token of `tokenizer`.

    Attributes:
        nouns: common nouns, in the singular.
        transitive: verbs, in the plural.
        intransitive: verbs, in the plural.
        copulas: verbs, in the plural.
        determiners: words that go with both numbers.
        prepositions: prepositions.
        adjectives: adjectives.
        adverbs: words that end a sentence after an intransitive verb.
        openers: words that a sentence may open with.

    Raises:
        ValueError: if there are no words of one kind, a noun or verb has no other form, or two
            forms are spelled alike.
    """

    nouns: tuple[str, ...] = (
        *("actor", "author", "baker", "bird", "boy", "cat", "child", "cousin", "dancer", "doctor"),
        *("dog", "driver", "duck", "farmer", "fox", "friend", "girl", "goat", "horse", "judge"),
        *("king", "lady", "lawyer", "lion", "man", "mouse", "neighbor", "nurse", "painter"),
        *("pilot", "poet", "prince", "rabbit", "sailor", "singer", "spy", "teacher", "tiger"),
        *("uncle", "waiter", "wolf", "woman", "writer", "zebra"),
    )
    transitive: tuple[str, ...] = (
        *("admire", "annoy", "avoid", "catch", "chase", "envy", "follow", "forget", "greet"),
        *("have", "hear", "help", "know", "like", "meet", "miss", "need", "praise", "push", "see"),
        *("teach", "thank", "touch", "trust", "visit", "watch"),
    )
    intransitive: tuple[str, ...] = (
        *("arrive", "cry", "go", "laugh", "run", "sing", "sleep", "smile", "wait", "walk"),
    )
    copulas: tuple[str, ...] = ("are", "seem", "look", "stay")
    determiners: tuple[str, ...] = ("the", "my", "your", "our", "their")
    prepositions: tuple[str, ...] = ("near", "behind", "beside", "with", "above", "below")
    adjectives: tuple[str, ...] = (
        *("angry", "brave", "calm", "clever", "happy", "hungry", "old", "quiet", "tall", "young"),
    )
    adverbs: tuple[str, ...] = ("again", "alone", "often", "outside", "slowly", "there", "well")
    openers: tuple[str, ...] = ("now", "today", "usually", "sometimes")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name):
                raise ValueError(f"A grammar needs {field.name}.")
        for word in self.words:
            if not word or word != word.lower() or word.split() != [word]:
                raise ValueError(f"A word must be in lower case and without spaces, got {word!r}.")
        word, count = collections.Counter(self.words).most_common(1)[0]
        if count > 1:
            raise ValueError(f"The grammar has the word {word!r} {count} times.")

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """All words of the language, each once."""
        return (
            *itertools.chain(*self._nouns.values(), *self._verbs.values()),
            *(*self.determiners, *self.prepositions, *self.adjectives),
            *(*self.adverbs, *self.openers, "that", ",", "."),
        )

    @functools.cached_property
    def _nouns(self) -> dict[str, tuple[str, str]]:
        return {noun: (noun, plural_noun(noun)) for noun in self.nouns}

    @functools.cached_property
    def _verbs(self) -> dict[str, tuple[str, str]]:
        forms = {}
        for verb in (*self.transitive, *self.intransitive, *self.copulas):
            singular = other_number(verb, "VBP")
            if singular is None:
                raise ValueError(f"The singular of the verb {verb!r} isn't known.")
            forms[verb] = (singular, verb)
        return forms

    def sample(
        self,
        n: int,
        *,
        attractors: int | Sequence[int],
        intervening: int | Sequence[int] | None = None,
        seed: int = 0,
    ) -> list[AgreementSentence]:
        """Draw sentences with given numbers of attractors.

        As many subjects are plural as singular, give or take one, and all possible pairs of numbers
        of attractors and of intervening nouns are equally frequent. Words are uniform among those
        of their kind, the order of the intervening nouns among all orders. For training,
        ``attractors=range(5), intervening=range(5)`` has the noun nearest to the verb say nothing
        about the subject's number.

        Args:
            n: the number of sentences.
            attractors: how many nouns between the subject and the verb have the other number; or
                several such numbers, each drawn as often, relatively, as it is given.
            intervening: how many nouns there are between the two, attractors and others, likewise;
                by default, all are attractors.
            seed: equal grammars, arguments and seeds give equal sentences.

        Returns:
            The sentences, in random order.

        Raises:
            TypeError: if a number is not an integer.
            ValueError: if one is negative, there are none, or one is in no possible pair.

        Example:
            >>> for sentence in Grammar().sample(3, attractors=1):
            ...     print(" ".join(sentence.words))
            their judge that chases your farmers cries alone .
            their uncle that your brave zebras miss looks brave .
            your farmers above our girl teach our writers .
        """
        if operator.index(n) < 0:
            raise ValueError(f"n must be at least 0, got {n}.")
        pairs = _pairs(attractors, intervening)
        rng = random.Random(seed)
        plural = [False, True]
        rng.shuffle(pairs)
        rng.shuffle(plural)
        cells = itertools.cycle(itertools.product(pairs, plural))
        drawn = list(itertools.islice(cells, n))
        rng.shuffle(drawn)
        return [self._sentence(rng, *pair, plural) for pair, plural in drawn]

    def tokenizer(self) -> Tokenizer:
        """Make a tokenizer with a token per word.

        The ids of ``[PAD]``, ``[UNK]``, ``[CLS]``, ``[SEP]`` and ``[MASK]`` are 0 to 4, those of
        `words` follow. Text is lower-cased and split at white space; ``[CLS]`` is put before it and
        ``[SEP]`` after it.
        """
        vocabulary = {word: number for number, word in enumerate((*SPECIAL, *self.words))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.add_special_tokens(list(SPECIAL))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
        return tokenizer

    # Each of the following is the rule of its name; numbers are True for the plural.

    def _sentence(
        self, rng: random.Random, attractors: int, intervening: int, plural: bool
    ) -> AgreementSentence:
        between = [not plural] * attractors + [plural] * (intervening - attractors)
        rng.shuffle(between)
        opening = self._opening(rng)
        before = [*opening, *self._phrase(rng, [plural, *between])]
        sentence = [*before, *self._verb(rng, plural), (".", ".")]
        words, tags = zip(*sentence, strict=True)
        subject = next(n for n in range(len(opening), len(tags)) if tags[n] in NOUNS)
        return AgreementSentence(words, tags, subject, len(before))

    def _opening(self, rng: random.Random) -> list[Tagged]:
        comma = (",", ",")
        match rng.randrange(4):
            case 0:
                return [(rng.choice(self.openers), "RB"), comma]
            case 1:
                return [self._preposition(rng), *self._simple(rng, rng.random() < 0.5), comma]
            case _:
                return []

    def _phrase(self, rng: random.Random, numbers: list[bool]) -> list[Tagged]:
        """Draw a phrase with as many nouns, in this order, as there are numbers."""
        plural, *inner = numbers
        words = self._simple(rng, plural)
        while inner:
            size = rng.randint(1, len(inner))
            words += self._modifier(rng, plural, inner[:size])
            inner = inner[size:]
        return words

    def _simple(self, rng: random.Random, plural: bool) -> list[Tagged]:
        determiner = rng.choice(self.determiners)
        words = [(determiner, "PRP$" if determiner in POSSESSIVES else "DT")]
        if rng.random() < 0.25:
            words.append((rng.choice(self.adjectives), "JJ"))
        noun = self._nouns[rng.choice(self.nouns)][plural]
        return [*words, (noun, NOUNS[plural])]

    def _modifier(self, rng: random.Random, plural: bool, numbers: list[bool]) -> list[Tagged]:
        """Draw a modifier of a noun of this number, with as many nouns as there are numbers."""
        phrase = self._phrase(rng, numbers)
        match rng.randrange(3):
            case 0:
                return [self._preposition(rng), *phrase]
            case 1:
                return [("that", "WDT"), *phrase, self._form(rng, self.transitive, numbers[0])]
            case _:
                return [("that", "WDT"), self._form(rng, self.transitive, plural), *phrase]

    def _verb(self, rng: random.Random, plural: bool) -> list[Tagged]:
        match rng.randrange(3):
            case 0:
                words = self._simple(rng, rng.random() < 0.5)
                return [self._form(rng, self.transitive, plural), *words]
            case 1:
                words = (rng.choice(self.adverbs), "RB")
                return [self._form(rng, self.intransitive, plural), words]
            case _:
                words = (rng.choice(self.adjectives), "JJ")
                return [self._form(rng, self.copulas, plural), words]

    def _form(self, rng: random.Random, verbs: tuple[str, ...], plural: bool) -> Tagged:
        return self._verbs[rng.choice(verbs)][plural], VERB_OF[NOUNS[plural]]

    def _preposition(self, rng: random.Random) -> Tagged:
        return rng.choice(self.prepositions), "IN"


def _pairs(
    attractors: int | Sequence[int], intervening: int | Sequence[int] | None
) -> list[tuple[int, int]]:
    """Pair all numbers of attractors with all numbers of intervening nouns that allow them."""
    some = _counts("attractors", attractors)
    if intervening is None:
        return [(number, number) for number in some]
    totals = _counts("intervening", intervening)
    pairs = [(number, total) for number in some for total in totals if number <= total]
    if {*some} != {number for number, _ in pairs} or {*totals} != {total for _, total in pairs}:
        raise ValueError(
            f"Not every one of {some} attractors fits into some number of {totals} intervening "
            "nouns, or the other way round."
        )
    return pairs


def _counts(name: str, value: int | Sequence[int]) -> list[int]:
    counts = list(map(operator.index, value if isinstance(value, Sequence) else [value]))
    if not counts or min(counts) < 0:
        raise ValueError(f"{name} must be at least 0, or a sequence of such, got {value!r}.")
    return counts
