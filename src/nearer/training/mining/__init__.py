"""Training examples out of judgments, training files and documents.

`mine` makes examples of judged pairs with hard negatives that are really negative; `noise` finds
positives that are probably wrong; `weak` takes pairs out of the documents' own text; `leakage`
keeps held-out queries out of all of them.
"""

from nearer.training.mining.miner import mine
from nearer.training.mining.negatives import JUDGED_NEGATIVE, Evidence, Similarity
from nearer.training.mining.result import Account, Mined
from nearer.training.mining.suspects import Suspect

__all__ = [
    "JUDGED_NEGATIVE",
    "Account",
    "Evidence",
    "Mined",
    "Similarity",
    "Suspect",
    "mine",
]
