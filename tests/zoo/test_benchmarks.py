"""BLiMP's and Gulordava et al.'s files: made-up ones in their formats, and what is left out."""

import json

import pytest

from semijax import zoo

HEADER = [
    *("pattern", "constr_id", "sent_id", "correct_number", "form", "class", "type", "prefix"),
    *("n_attr", "punct", "freq", "len_context", "len_prefix", "sent"),
]


def write_pairs(path, pairs, paradigm):
    rows = [{"sentence_good": g, "sentence_bad": b, "UID": paradigm} for g, b in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_blimp_is_read_where_the_subject_can_be_told(tmp_path):
    pairs = [
        ("The sketch of those trucks is old.", "The sketch of those trucks are old."),
        ("Most boys who like that girl sing.", "Most boys who like that girl sings."),
        # A distractor that may not be the word before the verb, or not a common noun.
        ("A sketch of lights appears.", "A sketch of lights appear."),
        ("The movies about Ann appear.", "The movies about Ann appears."),
        # The subject may be another word.
        (
            "A newspaper article about the king is old.",
            "A newspaper article about the king are old.",
        ),
        ("Ann sees Bob.", "Ann see Bob."),
        # The past tense, and two words that differ.
        ("The sketch of those trucks was old.", "The sketch of those trucks were old."),
        ("The cup of that man is his.", "The cup of that man are hers."),
    ]
    name = "distractor_agreement_relational_noun"
    first, second = zoo.read_blimp(write_pairs(tmp_path / "a.jsonl", pairs, name))
    assert (first.words[first.subject], first.right, first.wrong) == ("sketch", "is", "are")
    assert [first.words[n] for n in first.attractors] == ["trucks"]
    assert (second.words[second.subject], second.right, second.wrong) == ("boys", "sing", "sings")
    assert [second.words[n] for n in second.attractors] == ["girl"]


def test_other_paradigms_of_blimp_have_no_attractors(tmp_path):
    pairs = [("These dogs chase that cat.", "These dogs chases that cat.")]
    (one,) = zoo.read_sentences(write_pairs(tmp_path / "a.jsonl", pairs, "regular_plural"))
    assert (one.words[one.subject], one.verb, one.attractors) == ("dogs", 2, ())


def test_a_line_that_is_no_pair_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sentence_good": "A dog runs."}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: not a pair"):
        list(zoo.read_blimp(tmp_path / "a.jsonl"))


def write_nonce(path, **changes):
    row = dict.fromkeys(HEADER, "0") | {
        "pattern": "L__NOUN_VERB_VERB",
        "correct_number": "plur",
        "form": "use",
        "class": "correct",
        "len_context": "5",
        "len_prefix": "6",
        "sent": "Administrative debtors that virtually would merge add crimes . <eos>",
    }
    rows = [row, row | {"class": "wrong", "form": "uses"}, row | {"pattern": "R__VERB_NOUN_VERB"}]
    lines = [HEADER, *([(each | changes)[name] for name in HEADER] for each in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_gulordava_is_read_with_the_verb_of_its_own_column(tmp_path):
    (one,) = zoo.read_sentences(write_nonce(tmp_path / "generated.tab"))
    assert one.words == (
        *("Administrative", "debtors", "that", "virtually", "would", "merge", "use", "crimes", "."),
    )
    assert (one.words[one.subject], one.right, one.wrong) == ("debtors", "use", "uses")


@pytest.mark.parametrize("changes", [{"len_prefix": "20"}, {"correct_number": "dual"}])
def test_a_contradiction_is_named(tmp_path, changes):
    path = write_nonce(tmp_path / "generated.tab", **changes)
    with pytest.raises(ValueError, match=r"generated\.tab, line 2"):
        list(zoo.read_gulordava(path))
