"""Tokenizers: the ids are those of transformers."""

import json

import pytest
import transformers

from semijax import zoo

TOKENS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the path Path paths ##s ##way un ##known , . ' café cafe 道 路"
)
TEXTS = [
    "The paths, unknown.",
    "Pathway [MASK] the\tpath's",
    "CAFÉ café Café",
    "道路",
    "xyz\u0000 the  道path",
    "",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS.split()) + "\n", encoding="utf-8")
    return tmp_path


def same_as_transformers(folder):
    ours, theirs = (
        zoo.load_tokenizer(folder),
        transformers.BertTokenizerFast.from_pretrained(folder),
    )
    for pair in [(text,) for text in TEXTS] + [(TEXTS[0], TEXTS[1])]:
        encoding, expected = ours.encode(*pair), theirs(*pair)
        assert encoding.ids == expected["input_ids"]
        assert encoding.type_ids == expected["token_type_ids"]
        for special in (True, False):
            found = ours.decode(encoding.ids, skip_special_tokens=special)
            assert found == theirs.decode(
                encoding.ids, skip_special_tokens=special, clean_up_tokenization_spaces=False
            )
    return ours


@pytest.mark.parametrize(
    "options",
    [
        None,
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
)
def test_vocab_txt(options, folder):
    if options is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(options))
    tokenizer = same_as_transformers(folder)
    assert tokenizer.get_vocab_size() == len(TOKENS.split())
    lower = options is None or options.get("do_lower_case", True)
    words = tokenizer.encode("Path").tokens
    assert words == ["[CLS]", "path" if lower else "Path", "[SEP]"]


def test_tokenizer_json_comes_first_and_neither_pads_nor_truncates(folder):
    path = folder / "tokenizer.json"
    tokenizer = zoo.load_tokenizer(folder)
    tokenizer.enable_padding(length=11)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))
    (folder / "vocab.txt").write_text("")
    tokens = zoo.load_tokenizer(folder).encode("the path .").tokens
    assert tokens == ["[CLS]", "the", "path", ".", "[SEP]"]
    same_as_transformers(folder)


def test_what_transformers_saves(folder, tmp_path):
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    transformers.BertTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    same_as_transformers(tmp_path / "saved")


def test_no_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.txt in"):
        zoo.load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nthe\n")
    with pytest.raises(ValueError, match=r"vocab\.txt lacks \[SEP\], \[MASK\]"):
        zoo.load_tokenizer(tmp_path)
