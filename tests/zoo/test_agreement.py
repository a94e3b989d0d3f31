"""Agreement sentences: Linzen's file as published, the other form of a verb, and the encoding."""

import collections
import gzip

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from semijax.zoo.agreement import (
    KINDS,
    AgreementSentence,
    Encoded,
    encode,
    other_number,
    read_linzen,
    sample_by_attractors,
    write_linzen,
)

HEADER = (
    "sentence orig_sentence pos_sentence subj verb subj_pos has_rel has_nsubj verb_pos subj_index "
    "verb_index n_intervening last_intervening n_diff_intervening distance max_depth all_nouns "
    "nouns_up_to_verb"
)

# The sentence, its tags, the columns from subj to max_depth, all nouns, and those up to the verb.
ROWS = [
    (
        "the key to the cabinets is rusty .",
        "DT NN IN DT NNS VBZ JJ .",
        "key is NN False False VBZ 2 6 1 NNS 1 4 1",
        "key cabinets",
        "key cabinets",
    ),
    (
        "the keys to the cabinet are rusty .",
        "DT NNS IN DT NN VBP JJ .",
        "keys are NNS False False VBP 2 6 1 NN 1 4 1",
        "keys cabinet",
        "keys cabinet",
    ),
    (
        "the author that the critics praise writes books .",
        "DT NN WDT DT NNS VBP VBZ NNS .",
        "author writes NN True True VBZ 2 7 1 NNS 1 5 1",
        "author critics books",
        "author critics",
    ),
    (
        "authors who know the critic of the plays in the town have readers .",
        "NNS WP VBP DT NN IN DT NNS IN DT NN VBP NNS .",
        "authors have NNS True False VBP 1 12 3 NN 2 11 3",
        "authors critic plays town readers",
        "authors critic plays town",
    ),
    (
        "the boxes near the shelves contain a book .",
        "DT NNS IN DT NNS VBP DT NN .",
        "boxes contain NNS False False VBP 2 6 1 NNS 0 4 1",
        "boxes shelves book",
        "boxes shelves",
    ),
    (
        "yesterday , the box in London holds letters .",
        "NN , DT NN IN NNP VBZ NNS .",
        "box holds NN False False VBZ 4 7 0 na 0 3 0",
        "yesterday box letters",
        "yesterday box",
    ),
    (
        'the " names " of the river in the maps of the valley vary .',
        "DT '' NNS '' IN DT NN IN DT NNS IN DT NN VBP .",
        "names vary NNS False False VBP 3 14 3 NN 2 11 3",
        "names river maps valley",
        "names river maps valley",
    ),
    (
        "the mayor of the 5\u00a0000 people in the two towns by the lakes goes home .",
        "DT NN IN DT CD NNS IN DT CD NNS IN DT NNS VBZ NN .",
        "mayor Goes NN False False VBZ 2 14 3 NNS 3 12 3",
        "mayor people towns lakes home",
        "mayor people towns lakes",
    ),
    (
        "lies and the fear of truth do little .",
        "NNS CC DT NN IN NN VBP RB .",
        "lies do NNS False False VBP 1 7 2 NN 2 6 1",
        "lies fear truth",
        "lies fear truth",
    ),
    (
        "the river 's end .",
        "DT NN VBZ VB .",
        "river 's NN False False VBZ 2 3 0 na 0 1 0",
        "river",
        "river",
    ),
    (
        "dogs bark .",
        "NNS VBP .",
        "dogs bark NNS False False VBP 1 2 0 na 0 1 0",
        "dogs",
        "dogs",
    ),
]
# The words at the subject and at the attractors, and the wrong form.
EXPECTED = [
    ("key", "cabinets", "are"),
    ("keys", "cabinet", "is"),
    ("author", "critics", "write"),
    ("authors", "critic town", "has"),
    ("boxes", "", "contains"),
    ("box", "", "hold"),
    ("names", "river valley", "varies"),
    ("mayor", "people towns lakes", "go"),
    ("lies", "fear truth", "does"),
    ("river", "", None),
    ("dogs", "", "barks"),
]


def linzen_text(rows):
    """As Python 2's csv.writer wrote it: lines end in CR LF, and fields with quotes are quoted."""
    lines = [HEADER.split()]
    for words, tags, columns, nouns, before in rows:
        rare = words.replace("cabinets", "NNS")
        lines.append([rare, words, tags, *columns.split(), nouns, before])
    quoted = [
        ['"' + field.replace('"', '""') + '"' if '"' in field else field for field in line]
        for line in lines
    ]
    return "".join("\t".join(line) + "\r\n" for line in quoted)


@pytest.fixture
def linzen(tmp_path):
    path = tmp_path / "agr.tsv"
    path.write_bytes(linzen_text(ROWS).encode())
    return path


def test_what_is_written_in_linzens_format_is_found(linzen):
    sentences = list(read_linzen(linzen))
    assert len(sentences) == len(ROWS) == len(EXPECTED)
    for sentence, (words, tags, *_), expected in zip(sentences, ROWS, EXPECTED, strict=True):
        assert " ".join(sentence.words) == words
        assert " ".join(sentence.tags) == tags
        attractors = " ".join(sentence.words[n] for n in sentence.attractors)
        assert (sentence.words[sentence.subject], attractors, sentence.wrong) == expected
    assert [s.right for s in sentences[:3]] == ["is", "are", "writes"]
    # The nouns between that are no attractors: of the subject's number, or proper.
    between = [[s.words[n] for n in s.intervening] for s in sentences]
    assert between[3:6] == [["critic", "plays", "town"], ["shelves"], []]


def test_words_are_split_at_spaces_alone(linzen):
    assert "5\u00a0000" in list(read_linzen(linzen))[7].words


@pytest.mark.parametrize("name", ["copy.tsv", "copy.tsv.gz"])
def test_what_is_written_is_read(linzen, tmp_path, name):
    sentences = list(read_linzen(linzen))
    write_linzen(sentences, tmp_path / name)
    assert list(read_linzen(str(tmp_path / name))) == sentences


def test_what_is_written_is_linzens_format(linzen, tmp_path):
    path = tmp_path / "copy.tsv"
    write_linzen(read_linzen(linzen), path)
    header, *lines = (line.split("\t") for line in path.read_text().splitlines())
    assert header == HEADER.split()
    empty = {"has_rel", "has_nsubj", "max_depth"}
    _, *given = (line.split("\t") for line in linzen_text(ROWS).splitlines())
    for line, expected in zip(lines, given, strict=True):
        for column, ours, theirs in zip(header[1:], line[1:], expected[1:], strict=True):
            assert ours == ("" if column in empty else theirs.replace("Goes", "goes"))


def test_a_compressed_file_is_read(linzen, tmp_path):
    compressed = tmp_path / "agr.tsv.gz"
    compressed.write_bytes(gzip.compress(linzen.read_bytes()))
    assert list(read_linzen(compressed)) == list(read_linzen(linzen))


def test_files_of_the_needed_columns_alone_are_read(linzen, tmp_path):
    path = tmp_path / "short.tsv"
    path.write_text(
        "verb_index\tpos_sentence\torig_sentence\tsubj_index\n2\tNNS VBP .\tdogs bark .\t1\n"
    )
    assert list(read_linzen(path)) == list(read_linzen(linzen))[-1:]


KEYS = "keys are NNS False False VBP 2 6 1 NN 1 4 1"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "keys is NNS False False VBP 2 6 1 NN 1 4 1",
            "verb is 'is', but by the words and tags 'a",
        ),
        ("cabinet are NNS False False VBP 2 6 1 NN 1 4 1", "subj is 'cabinet'"),
        ("keys are NN False False VBP 2 6 1 NN 1 4 1", "subj_pos is 'NN'"),
        ("keys are NNS False False VBZ 2 6 1 NN 1 4 1", "verb_pos is 'VBZ'"),
        ("keys are NNS False False VBP 2 6 2 NN 1 4 1", "n_intervening is '2'"),
        ("keys are NNS False False VBP 2 6 1 NNS 1 4 1", "last_intervening is 'NNS'"),
        ("keys are NNS False False VBP 2 6 1 NN 0 4 1", "n_diff_intervening is '0'"),
        ("keys are NNS False False VBP 2 6 1 NN 1 5 1", "distance is '5'"),
        ("keys are NNS False False VBP 2 9 1 NN 1 4 1", "at 1 and its verb at 8 must follow"),
        ("keys are NNS False False VBP 0 6 1 NN 1 4 1", "at -1 and its verb at 5 must follow"),
        ("keys are NNS False False VBP 6 2 1 NN 1 4 1", "at 5 and its verb at 1 must follow"),
        ("keys are NNS False False VBP 3 6 1 NN 1 4 1", "'to' is tagged IN, which is none of NN, "),
        ("cabinet are NN False False VBP 5 6 0 na 0 1 1", "it must be VBZ"),
        ("keys rusty NNS False False JJ 2 7 1 NN 1 5 1", "'rusty' is tagged JJ"),
        ("keys are NNS False False VBP two 6 1 NN 1 4 1", "'two'"),
        ("keys are NNS", "not have as many columns as the header"),
        (KEYS + " 7 7", "not have as many columns as the header"),
    ],
)
def test_lines_that_contradict_themselves_are_refused(tmp_path, columns, message):
    path = tmp_path / "agr.tsv"
    words, tags, _, *nouns = ROWS[1]
    path.write_text(linzen_text([ROWS[0], (words, tags, columns, *nouns)]))
    lines = read_linzen(path)
    assert next(lines).right == "is"
    with pytest.raises(ValueError, match=message) as error:
        next(lines)
    assert str(error.value).startswith(f"{path}, line 3: ")


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        ("the keys are here .", "DT NNS VBP RB", "5 words have 4 tags"),
        ("the keys  are .", "DT NNS  VBP .", "neither empty nor hold spaces: ''"),
    ],
)
def test_words_and_tags_that_do_not_match_are_refused(tmp_path, words, tags, message):
    path = tmp_path / "agr.tsv"
    path.write_text(linzen_text([(words, tags, KEYS, "keys", "keys")]))
    with pytest.raises(ValueError, match=message):
        list(read_linzen(path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.tsv"
    path.write_text("sentence\torig_sentence\n")
    missing = "has no column pos_sentence, subj_index, verb_index"
    with pytest.raises(ValueError, match=missing):
        list(read_linzen(path))
    with pytest.raises(FileNotFoundError):
        list(read_linzen(tmp_path / "none.tsv"))


def numbered(attractors, count):
    for number in range(count):
        words = (f"key{number}", *["cabinets"] * attractors, "is")
        tags = ("NN", *["NNS"] * attractors, "VBZ")
        yield AgreementSentence(words, tags, 0, attractors + 1)


def test_a_sample_has_so_many_of_each_number():
    sentences = [*numbered(3, 5), *numbered(0, 11), *numbered(1, 31)]
    sample = sample_by_attractors(iter(sentences), {1: 7, 3: 5, 0: 0})
    assert collections.Counter(len(s.attractors) for s in sample) == {1: 7, 3: 5}
    places = [sentences.index(s) for s in sample]
    assert places == sorted(set(places))
    assert sample == sample_by_attractors(sentences, {0: 0, 1: 7, 3: 5})
    assert sample != sample_by_attractors(sentences, {1: 7, 3: 5}, seed=1)


def test_samples_are_uniform():
    sentences = list(numbered(1, 7))
    drawn = collections.Counter(
        sentence.words[0]
        for seed in range(2_000)
        for sentence in sample_by_attractors(sentences, {1: 3}, seed=seed)
    )
    # Five standard deviations of a binomial count.
    expected, deviation = 2_000 * 3 / 7, np.sqrt(2_000 * 3 / 7 * 4 / 7)
    assert len(drawn) == 7
    assert all(abs(count - expected) < 5 * deviation for count in drawn.values())


def test_a_sample_of_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="only 5 sentences with 2 attractors, not 6"):
        sample_by_attractors(numbered(2, 5), {2: 6})


VERBS = (
    "is/are has/have does/do goes/go undergoes/undergo says/say makes/make takes/take sees/see "
    "comes/come uses/use causes/cause loses/lose closes/close chooses/choose raises/raise "
    "increases/increase passes/pass misses/miss discusses/discuss focuses/focus fixes/fix "
    "mixes/mix buzzes/buzz quizzes/quiz freezes/freeze realizes/realize watches/watch "
    "teaches/teach reaches/reach catches/catch aches/ache pushes/push publishes/publish "
    "judges/judge places/place replaces/replace breathes/breathe flies/fly cries/cry "
    "carries/carry studies/study applies/apply occupies/occupy lies/lie dies/die ties/tie "
    "underlies/underlie plays/play stays/stay buys/buy enjoys/enjoy agrees/agree frees/free "
    "dyes/dye argues/argue owes/owe echoes/echo vetoes/veto ages/age likes/like serves/serve "
    "contains/contain sings/sing belongs/belong predates/predate re-elects/re-elect skis/ski"
)


@pytest.mark.parametrize("pair", VERBS.split())
def test_both_forms_of_a_verb_are_known(pair):
    singular, plural = pair.split("/")
    assert other_number(singular, "VBZ") == plural
    assert other_number(plural, "VBP") == singular


@pytest.mark.parametrize(
    ("verb", "tag"),
    [("'s", "VBZ"), ("'re", "VBP"), ("can", "VBZ"), ("90s", "VBZ"), ("-", "VBP"), ("taxi", "VBP")],
)
def test_what_has_no_known_other_form_has_none(verb, tag):
    assert other_number(verb, tag) is None


def test_verbs_of_other_tenses_are_refused():
    with pytest.raises(ValueError, match="tagged VBZ or VBP, not VBD"):
        other_number("was", "VBD")


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = (
    "the author ##s crit ##ic ##ics key of with - two twenty praise ##d writes write has have "
    "is are book books box in town . ##x we ##igh weigh"
)


def word_pieces(pieces=PIECES):
    """A tokenizer of BERT's kind, with a small vocabulary."""
    ids = {token: number for number, token in enumerate([*SPECIAL, *pieces.split()])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def sentence(text, tags, subject, verb):
    return AgreementSentence(tuple(text.split()), tuple(tags.split()), subject, verb)


KEY = sentence("The key of twenty-two books is twenty .", "DT NN IN CD NNS VBZ CD .", 1, 5)
AUTHORS = sentence(
    "authors of the book of two critics have .", "NNS IN DT NN IN CD NNS VBP .", 0, 7
)


def described(encoded, tokenizer):
    assert isinstance(encoded, Encoded)
    assert encoded.ids.dtype == encoded.kinds.dtype == np.int32
    assert encoded.ids.shape == encoded.kinds.shape
    tokens = [tokenizer.id_to_token(token) for token in encoded.ids]
    assert tokens[encoded.mask] == "[MASK]"
    forms = tokenizer.id_to_token(encoded.right), tokenizer.id_to_token(encoded.wrong)
    return " ".join(tokens), " ".join(KINDS[kind] for kind in encoded.kinds), forms


def test_a_word_of_many_tokens_keeps_the_others_in_place():
    tokenizer = word_pieces()
    tokens, kinds, forms = described(encode(KEY, tokenizer), tokenizer)
    assert tokens == "[CLS] the key of twenty - two books [MASK] twenty . [SEP]"
    assert kinds == (
        "special other subject other other other other attractor mask other other special"
    )
    assert forms == ("is", "are")


def test_split_nouns_are_labelled_whole_on_request():
    tokenizer = word_pieces()
    assert encode(AUTHORS, tokenizer) == "the subject or an attractor is several tokens"
    tokens, kinds, forms = described(encode(AUTHORS, tokenizer, split_nouns=True), tokenizer)
    assert tokens == "[CLS] author ##s of the book of two crit ##ics [MASK] . [SEP]"
    assert kinds == (
        "special subject subject other other attractor other other other other mask other special"
    )
    assert forms == ("have", "has")


def test_attractors_may_be_split_too():
    text = sentence("the key of the authors is .", "DT NN IN DT NNS VBZ .", 1, 5)
    tokenizer = word_pieces()
    assert encode(text, tokenizer) == "the subject or an attractor is several tokens"
    _, kinds, _ = described(encode(text, tokenizer, split_nouns=True), tokenizer)
    assert kinds == "special other subject other other attractor attractor mask other special"


def test_a_mask_token_need_not_be_declared_special():
    declared = word_pieces()
    declared.add_special_tokens(SPECIAL)
    for with_it, without in zip(encode(KEY, declared), encode(KEY, word_pieces()), strict=True):
        np.testing.assert_array_equal(with_it, without)


def without(*pieces):
    return word_pieces(" ".join(piece for piece in PIECES.split() if piece not in pieces))


@pytest.mark.parametrize(
    ("text", "tokenizer", "reason"),
    [
        (sentence("keys 're .", "NNS VBP .", 0, 1), word_pieces(), "other form of the verb isn't"),
        (KEY, without("are"), "a form of the verb is not one token"),
        (KEY, without("is"), "a form of the verb is not one token"),
        (sentence("key weighs .", "NN VBZ .", 0, 1), word_pieces(), "a form of the verb is not"),
        (KEY, without("key"), "the subject or an attractor is not in the vocabulary"),
        (KEY, without("books", "book"), "the subject or an attractor is not in the vocabulary"),
        # A word that the normalizer removes.
        (sentence("\u0007 is .", "NN VBZ .", 0, 1), word_pieces(), "not in the vocabulary"),
    ],
)
def test_sentences_that_cannot_be_used_say_why(text, tokenizer, reason):
    for split_nouns in (False, True):
        assert reason in encode(text, tokenizer, split_nouns=split_nouns)


@pytest.mark.parametrize("change", ["enable_padding", "enable_truncation", None])
def test_tokenizers_that_do_not_fit_are_refused(change):
    if change is None:
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    else:
        tokenizer = word_pieces()
        getattr(tokenizer, change)(**{"max_length": 7} if "truncation" in change else {})
    with pytest.raises(ValueError, match=r"must have \[MASK\], and neither pad nor truncate"):
        encode(KEY, tokenizer)
