"""Readers over the data folder: plain rows out, each set with its own split.

splits.py says what is held out, sources.py what there is under which licence; pages, pairs, labelled, entities and
answers read one kind each. `python -m training.data ../shared/data/permissive` counts and shows rows.
"""

from training.data.answers import Answered, answers
from training.data.entities import Tagged, detokenize, entities, runs, spans_of
from training.data.labelled import Entailed, Intent, Labelled, intents, nli, sentiment, toxicity
from training.data.pages import Pair, passages, section_pairs, title_pairs
from training.data.pairs import QuestionPair, disfl_pairs, medquad_pairs, nl2bash_pairs, rqe_pairs, tldr_pairs
from training.data.sources import SOURCES
from training.data.splits import Split, held_out

__all__ = [
    "SOURCES",
    "Answered",
    "Entailed",
    "Intent",
    "Labelled",
    "Pair",
    "QuestionPair",
    "Split",
    "Tagged",
    "answers",
    "detokenize",
    "disfl_pairs",
    "entities",
    "held_out",
    "intents",
    "medquad_pairs",
    "nl2bash_pairs",
    "nli",
    "passages",
    "rqe_pairs",
    "runs",
    "section_pairs",
    "sentiment",
    "spans_of",
    "title_pairs",
    "tldr_pairs",
    "toxicity",
]
