"""Small models to look at, their training data, and their trainer.

Needs the ``zoo`` extra (Flax, Optax, tokenizers, …); the rest of semijax doesn't import it.
"""

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
from semijax.zoo.benchmarks import read_blimp, read_gulordava, read_sentences
from semijax.zoo.bert import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel
from semijax.zoo.checkpoints import load_checkpoint, save_checkpoint
from semijax.zoo.code_length import CodeLength, interleave, online_code_length, paper_blocks
from semijax.zoo.grammar import Grammar
from semijax.zoo.language_model import LSTMLanguageModel, next_word_loss
from semijax.zoo.tasks import (
    AdjacentDuplicate,
    BinCountOnes,
    Contains1,
    ContainsTokenSet,
    Dataset,
    FirstTokenRepeatedImmediately,
    FirstTokenRepeatedLast,
    FirstTokenRepeatedOnce,
    Splits,
    Task,
    figure_5_tasks,
    split,
)
from semijax.zoo.tokenization import load_tokenizer
from semijax.zoo.training import History, accuracy, cross_entropy, train, train_ensemble

__all__ = [
    "KINDS",
    "AdjacentDuplicate",
    "AgreementSentence",
    "BertConfig",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertModel",
    "BinCountOnes",
    "CodeLength",
    "Contains1",
    "ContainsTokenSet",
    "Dataset",
    "Encoded",
    "FirstTokenRepeatedImmediately",
    "FirstTokenRepeatedLast",
    "FirstTokenRepeatedOnce",
    "Grammar",
    "History",
    "LSTMLanguageModel",
    "Splits",
    "Task",
    "accuracy",
    "cross_entropy",
    "encode",
    "figure_5_tasks",
    "interleave",
    "load_checkpoint",
    "load_tokenizer",
    "next_word_loss",
    "online_code_length",
    "other_number",
    "paper_blocks",
    "read_blimp",
    "read_gulordava",
    "read_linzen",
    "read_sentences",
    "sample_by_attractors",
    "save_checkpoint",
    "split",
    "train",
    "train_ensemble",
    "write_linzen",
]
