"""The tokenizer of a BERT, read from files."""

from __future__ import annotations

import json
import os
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    r"""Load a tokenizer from a Hugging Face folder: ``tokenizer.json``, or ``vocab.txt``.

    A ``vocab.txt`` has a token in each line. With it, words are cut as Devlin et al. (2019) do
    (WordPiece), after lower-casing and removing accents, unless ``tokenizer_config.json`` says
    otherwise: ``do_lower_case``, ``strip_accents``, ``tokenize_chinese_chars``.

    Args:
        folder: where the files are.

    Returns:
        A ``tokenizers.Tokenizer``: ``encode(text).ids`` are the ids of ``[CLS] text [SEP]``. It
        neither pads nor truncates, unless told to by ``enable_padding`` and ``enable_truncation``.

    Raises:
        FileNotFoundError: if neither file is there.
        ValueError: if a ``vocab.txt`` lacks one of the special tokens.

    Example:
        >>> import pathlib, tempfile
        >>> from semijax import zoo
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "path", "##s"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (pathlib.Path(folder) / "vocab.txt").write_text("\n".join(tokens))
        ...     tokenizer = zoo.load_tokenizer(folder)
        >>> tokenizer.encode("Paths [MASK]").ids
        [2, 5, 6, 4, 3]
    """
    folder = pathlib.Path(folder)
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    if (folder / "vocab.txt").is_file():
        return _word_piece(folder)
    raise FileNotFoundError(f"There is neither tokenizer.json nor vocab.txt in {folder}.")


def _word_piece(folder: pathlib.Path) -> Tokenizer:
    """Build the tokenizer of a ``vocab.txt``."""
    vocab = models.WordPiece.read_file(str(folder / "vocab.txt"))
    lacking = [token for token in SPECIAL if token not in vocab]
    if lacking:
        raise ValueError(f"{folder / 'vocab.txt'} lacks {', '.join(lacking)}.")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),  # None: if lower-cased
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"])
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
