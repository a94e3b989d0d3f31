"""The agreement language: a slow parser, with a lexicon of its own, finds in it what it claims."""

import collections
import functools

import numpy as np
import pytest
from tokenizers import Tokenizer

from semijax.zoo.agreement import KINDS, Encoded, encode, read_linzen, write_linzen
from semijax.zoo.grammar import Grammar

# Written out by hand, not inflected: singular/plural.
NOUNS = (
    "actor/actors author/authors baker/bakers bird/birds boy/boys cat/cats child/children "
    "cousin/cousins dancer/dancers doctor/doctors dog/dogs driver/drivers duck/ducks "
    "farmer/farmers fox/foxes friend/friends girl/girls goat/goats horse/horses judge/judges "
    "king/kings lady/ladies lawyer/lawyers lion/lions man/men mouse/mice neighbor/neighbors "
    "nurse/nurses painter/painters pilot/pilots poet/poets prince/princes rabbit/rabbits "
    "sailor/sailors singer/singers spy/spies teacher/teachers tiger/tigers uncle/uncles "
    "waiter/waiters wolf/wolves woman/women writer/writers zebra/zebras"
)
TRANSITIVE = (
    "admires/admire annoys/annoy avoids/avoid catches/catch chases/chase envies/envy "
    "follows/follow forgets/forget greets/greet has/have hears/hear helps/help knows/know "
    "likes/like meets/meet misses/miss needs/need praises/praise pushes/push sees/see "
    "teaches/teach thanks/thank touches/touch trusts/trust visits/visit watches/watch"
)
INTRANSITIVE = (
    "arrives/arrive cries/cry goes/go laughs/laugh runs/run sings/sing sleeps/sleep smiles/smile "
    "waits/wait walks/walk"
)
COPULAS = "is/are seems/seem looks/look stays/stay"
OTHERS = {
    "determiner": "the my your our their",
    "preposition": "near behind beside with above below",
    "adjective": "angry brave calm clever happy hungry old quiet tall young",
    "adverb": "again alone often outside slowly there well",
    "opener": "now today usually sometimes",
    "that": "that",
    "comma": ",",
    "end": ".",
}


def lexicon():
    """By word, its kind and whether it is plural; None for words without number."""
    words = {word: (kind, None) for kind, some in OTHERS.items() for word in some.split()}
    kinds = {"noun": NOUNS, "transitive": TRANSITIVE, "intransitive": INTRANSITIVE}
    for kind, pairs in {**kinds, "copula": COPULAS}.items():
        for pair in pairs.split():
            for plural, form in enumerate(pair.split("/")):
                assert form not in words
                words[form] = (kind, bool(plural))
    return words


LEXICON = lexicon()


def parses(words):
    """The positions of the subject and of the verb in every parse of a sentence."""
    kinds = [LEXICON[word] for word in words] + [("nothing", None)] * 3

    def of_kind(kind, start):
        return start < len(words) and kinds[start][0] == kind

    def simple(start):
        """The end, and the noun, of a determiner, perhaps an adjective, and a noun."""
        if of_kind("determiner", start):
            noun = start + 2 if of_kind("adjective", start + 1) else start + 1
            if of_kind("noun", noun):
                yield noun + 1, noun

    @functools.cache
    def phrase(start):
        return {
            (end, noun) for after, noun in simple(start) for end in modified(after, kinds[noun][1])
        }

    @functools.cache
    def modified(start, plural):
        """Where the modifiers of a noun of this number may end."""
        return {start}.union(*(modified(after, plural) for after in modifier(start, plural)))

    def modifier(start, plural):
        if of_kind("preposition", start):
            yield from (end for end, _ in phrase(start + 1))
        if of_kind("that", start):
            if kinds[start + 1] == ("transitive", plural):
                yield from (end for end, _ in phrase(start + 2))
            for end, noun in phrase(start + 1):
                if kinds[end] == ("transitive", kinds[noun][1]):
                    yield end + 1

    def opening():
        yield 0
        if of_kind("opener", 0) and of_kind("comma", 1):
            yield 2
        if of_kind("preposition", 0):
            yield from (end + 1 for end, _ in simple(1) if of_kind("comma", end))

    def verb(start, plural):
        if kinds[start] == ("transitive", plural):
            yield from (end for end, _ in simple(start + 1))
        if kinds[start] == ("intransitive", plural) and of_kind("adverb", start + 1):
            yield start + 2
        if kinds[start] == ("copula", plural) and of_kind("adjective", start + 1):
            yield start + 2

    return {
        (subject, end)
        for start in opening()
        for end, subject in phrase(start)
        for last in verb(end, kinds[subject][1])
        if of_kind("end", last) and last + 1 == len(words)
    }


ALL = {"attractors": range(5), "intervening": range(5)}


@pytest.fixture(scope="module")
def grammar():
    return Grammar()


@pytest.fixture(scope="module")
def sentences(grammar):
    return grammar.sample(3_001, **ALL)


def is_plural(sentence, place):
    kind, plural = LEXICON[sentence.words[place]]
    assert kind == "noun"
    return plural


def test_the_parser_can_fail():
    good = "now , the fox that the dogs chase is old ."
    assert parses(good.split()) == {(3, 8)}
    bad = [
        "now , the fox that the dogs chases is old .",
        "now , the foxes that the dogs chase is old .",
        "now the fox is old .",
        "the fox that chases are old .",
        "the fox near the dogs are old .",
        "the fox near the dog is .",
        "the fox the dogs chase is old .",
        "the fox is old . .",
        "old the fox is old .",
    ]
    assert [parses(text.split()) for text in bad] == [set()] * len(bad)


def test_every_sentence_has_the_subject_it_says_in_every_parse(sentences):
    for sentence in sentences:
        assert parses(sentence.words) == {(sentence.subject, sentence.verb)}


def test_only_the_right_form_of_the_verb_is_in_the_language(sentences):
    for sentence in sentences:
        kind, plural = LEXICON[sentence.right]
        assert LEXICON[sentence.wrong] == (kind, not plural)
        words = [*sentence.words]
        words[sentence.verb] = sentence.wrong
        assert parses(words) == set()


def test_attractors_and_intervening_nouns_are_what_lies_between(sentences):
    for sentence in sentences:
        between = range(sentence.subject + 1, sentence.verb)
        nouns = [n for n in between if LEXICON[sentence.words[n]][0] == "noun"]
        number = is_plural(sentence, sentence.subject)
        assert list(sentence.intervening) == nouns
        assert list(sentence.attractors) == [n for n in nouns if is_plural(sentence, n) != number]


TAGS = {
    "preposition": "IN",
    "adjective": "JJ",
    "adverb": "RB",
    "opener": "RB",
    "that": "WDT",
    "comma": ",",
    "end": ".",
}


def test_tags_are_penns(sentences):
    for sentence in sentences[:500]:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            kind, plural = LEXICON[word]
            if kind == "noun":
                assert tag == ("NNS" if plural else "NN")
            elif kind == "determiner":
                assert tag == ("DT" if word == "the" else "PRP$")
            else:
                assert tag == TAGS.get(kind, "VBP" if plural else "VBZ")


@pytest.mark.parametrize("attractors", range(5))
def test_by_default_all_intervening_nouns_are_attractors(grammar, attractors):
    sentences = grammar.sample(211, attractors=attractors)
    assert all(len(s.attractors) == attractors for s in sentences)
    assert all(s.intervening == s.attractors for s in sentences)
    # One more of the one number than of the other.
    assert sum(is_plural(s, s.subject) for s in sentences) in (105, 106)


def test_numbers_are_balanced(sentences):
    assert sum(is_plural(s, s.subject) for s in sentences) in (1_500, 1_501)
    counts = collections.Counter(
        (len(s.attractors), len(s.intervening), is_plural(s, s.subject)) for s in sentences
    )
    pairs = [(a, b) for a in range(5) for b in range(5) if a <= b]
    assert counts.keys() == {(*pair, plural) for pair in pairs for plural in (False, True)}
    assert set(counts.values()) == {100, 101}


def test_repeated_numbers_are_the_more_frequent(grammar):
    sentences = grammar.sample(700, attractors=(0, 0, 1, 3, 3, 3, 3), intervening=3)
    counts = collections.Counter(len(s.attractors) for s in sentences)
    assert counts == {0: 200, 1: 100, 3: 400}
    assert all(len(s.intervening) == 3 for s in sentences)


def near(successes, n, probability):
    """Within five standard deviations of a binomial count."""
    return abs(successes - n * probability) < 5 * np.sqrt(n * probability * (1 - probability))


def test_the_nearest_noun_says_nothing(sentences):
    nearest = [s.intervening[-1] in s.attractors for s in sentences if s.intervening]
    assert near(sum(nearest), len(nearest), 1 / 2)
    # Nor do those before the subject and after the verb.
    first = [
        is_plural(s, 2) == is_plural(s, s.subject)
        for s in sentences
        if s.tags[:1] == ("IN",) and s.tags[2] != "JJ"
    ]
    last = [
        is_plural(s, len(s.words) - 2) == is_plural(s, s.subject)
        for s in sentences
        if s.tags[-2].startswith("NN")
    ]
    for agreements in (first, last):
        assert len(agreements) > 100 and near(sum(agreements), len(agreements), 1 / 2)


def test_order_is_random(sentences):
    half = sentences[:1_500]
    assert near(sum(is_plural(s, s.subject) for s in half), 1_500, 1 / 2)
    assert near(sum(len(s.attractors) == 0 for s in half), 1_500, 1 / 3)


def test_all_words_are_used_and_all_are_listed(grammar, sentences):
    assert {word for s in sentences for word in s.words} == set(grammar.words) == set(LEXICON)
    assert len(set(grammar.words)) == len(grammar.words)
    assert len(grammar.nouns) >= 40
    assert len(grammar.transitive) >= 25
    counts = collections.Counter(s.words[s.subject] for s in sentences)
    assert all(
        near(counts[noun], 3_001, 1 / (2 * 44))
        for pair in NOUNS.split()
        for noun in pair.split("/")
    )


def test_the_subject_is_at_many_places(sentences):
    assert {s.subject for s in sentences} == {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("intervening", range(4))
def test_lengths_are_bounded(grammar, intervening):
    sentences = grammar.sample(20_000, attractors=0, intervening=intervening)
    lengths = {len(s.words) for s in sentences}
    assert min(lengths) == 5 + 3 * intervening
    assert max(lengths) <= 13 + 5 * intervening
    if intervening < 2:  # longer ones are rare
        assert max(lengths) == 13 + 5 * intervening


def test_the_seed_decides(grammar):
    first, again, other = (grammar.sample(23, attractors=(0, 1), seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert not set(first) & set(other)


def test_one_sentence_is_not_always_singular(grammar):
    numbers = {
        is_plural(s, s.subject) for n in range(20) for s in grammar.sample(1, attractors=1, seed=n)
    }
    assert numbers == {False, True}


def test_no_sentences(grammar):
    assert grammar.sample(0, attractors=2) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1, "attractors": 0}, "n must be at least 0"),
        ({"n": 1, "attractors": -1}, "attractors must be at least 0"),
        ({"n": 1, "attractors": ()}, "attractors must be at least 0"),
        ({"n": 1, "attractors": 0, "intervening": (0, -2)}, "intervening must be at least 0"),
        ({"n": 1, "attractors": 2, "intervening": 1}, "[2] attractors"),
        ({"n": 1, "attractors": (0, 2), "intervening": 1}, "[0, 2] attractors"),
        ({"n": 1, "attractors": 2, "intervening": (1, 2)}, "[1, 2] intervening"),
    ],
)
def test_impossible_numbers_are_refused(grammar, arguments, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        grammar.sample(**arguments)


@pytest.mark.parametrize("arguments", [{"n": 1.5, "attractors": 0}, {"n": 1, "attractors": 0.5}])
def test_what_is_no_number_is_refused(grammar, arguments):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        grammar.sample(**arguments)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"adjectives": ()}, "A grammar needs adjectives"),
        ({"adverbs": ("Often",)}, "in lower case and without spaces, got 'Often'"),
        ({"openers": ("by now",)}, "in lower case and without spaces, got 'by now'"),
        ({"openers": ("",)}, "in lower case and without spaces, got ''"),
        ({"nouns": ("fox", "sheep")}, "has the word 'sheep' 2 times"),
        ({"adverbs": ("that",)}, "has the word 'that' 2 times"),
        ({"nouns": ("run",)}, "has the word 'run' 2 times"),
        ({"transitive": ("'ve",)}, "the verb \"'ve\" isn't known"),
    ],
)
def test_vocabularies_that_are_no_language_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Grammar(**words)


def test_other_words_make_another_language():
    grammar = Grammar(nouns=("city",), determiners=("some",), transitive=("cross",))
    for sentence in grammar.sample(30, attractors=1):
        assert {sentence.words[n] for n in (sentence.subject, *sentence.attractors)} == {
            "city",
            "cities",
        }
        assert sentence.tags[sentence.words.index("some")] == "DT"


def test_sentences_go_through_linzens_format(sentences, tmp_path):
    write_linzen(sentences, tmp_path / "generated.tsv")
    assert list(read_linzen(tmp_path / "generated.tsv")) == sentences


def test_each_word_is_a_token(grammar, tmp_path):
    grammar.tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *grammar.words]
    assert [tokenizer.token_to_id(token) for token in tokens] == list(range(len(tokens)))
    assert tokenizer.get_vocab_size() == len(tokens) == 203 + 5
    encoding = tokenizer.encode("The fox  near unicorns [MASK] old .")
    assert " ".join(encoding.tokens) == "[CLS] the fox near [UNK] [MASK] old . [SEP]"
    assert tokenizer.decode(encoding.ids) == "the fox near old ."


def test_all_sentences_can_be_encoded(grammar, sentences):
    tokenizer = grammar.tokenizer()
    for sentence in sentences[:500]:
        encoded = encode(sentence, tokenizer)
        assert isinstance(encoded, Encoded)
        # [CLS] comes first.
        assert encoded.mask == sentence.verb + 1
        words = [*sentence.words]
        words[sentence.verb] = "[MASK]"
        assert encoded.ids.tolist() == tokenizer.encode(" ".join(words)).ids
        kinds = np.array(KINDS)[encoded.kinds]
        assert np.flatnonzero(kinds == "subject").tolist() == [sentence.subject + 1]
        assert np.flatnonzero(kinds == "attractor").tolist() == [n + 1 for n in sentence.attractors]
        assert collections.Counter(kinds)["special"] == 2
        forms = [tokenizer.id_to_token(form) for form in (encoded.right, encoded.wrong)]
        assert forms == [sentence.right, sentence.wrong]
