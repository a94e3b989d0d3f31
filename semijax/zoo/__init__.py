"""Small models to look at, what they are trained on, and their trainer.

Needs the ``zoo`` extra (Flax, Optax, tokenizers, …); the rest of semijax doesn't import it.
"""

from semijax.zoo.agreement import KINDS as KINDS
from semijax.zoo.agreement import AgreementSentence as AgreementSentence
from semijax.zoo.agreement import Encoded as Encoded
from semijax.zoo.agreement import encode as encode
from semijax.zoo.agreement import other_number as other_number
from semijax.zoo.agreement import read_linzen as read_linzen
from semijax.zoo.agreement import sample_by_attractors as sample_by_attractors
from semijax.zoo.agreement import write_linzen as write_linzen
from semijax.zoo.bert import BertConfig as BertConfig
from semijax.zoo.bert import BertForMaskedLM as BertForMaskedLM
from semijax.zoo.bert import BertForSequenceClassification as BertForSequenceClassification
from semijax.zoo.bert import BertModel as BertModel
from semijax.zoo.checkpoints import load_checkpoint as load_checkpoint
from semijax.zoo.checkpoints import save_checkpoint as save_checkpoint
from semijax.zoo.code_length import CodeLength as CodeLength
from semijax.zoo.code_length import interleave as interleave
from semijax.zoo.code_length import online_code_length as online_code_length
from semijax.zoo.code_length import paper_blocks as paper_blocks
from semijax.zoo.grammar import Grammar as Grammar
from semijax.zoo.language_model import LSTMLanguageModel as LSTMLanguageModel
from semijax.zoo.language_model import next_word_loss as next_word_loss
from semijax.zoo.tasks import AdjacentDuplicate as AdjacentDuplicate
from semijax.zoo.tasks import BinCountOnes as BinCountOnes
from semijax.zoo.tasks import Contains1 as Contains1
from semijax.zoo.tasks import ContainsTokenSet as ContainsTokenSet
from semijax.zoo.tasks import Dataset as Dataset
from semijax.zoo.tasks import FirstTokenRepeatedImmediately as FirstTokenRepeatedImmediately
from semijax.zoo.tasks import FirstTokenRepeatedLast as FirstTokenRepeatedLast
from semijax.zoo.tasks import FirstTokenRepeatedOnce as FirstTokenRepeatedOnce
from semijax.zoo.tasks import Splits as Splits
from semijax.zoo.tasks import Task as Task
from semijax.zoo.tasks import figure_5_tasks as figure_5_tasks
from semijax.zoo.tasks import split as split
from semijax.zoo.tokenization import load_tokenizer as load_tokenizer
from semijax.zoo.training import History as History
from semijax.zoo.training import accuracy as accuracy
from semijax.zoo.training import cross_entropy as cross_entropy
from semijax.zoo.training import train as train
