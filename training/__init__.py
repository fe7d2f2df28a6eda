"""The recipe of the embedded model: from a folder of public data to a checkpoint of onepass's own.

    python -m training ../shared/data out/mini --seconds 600

Its stages, each a command of its own: vocabulary.py (words -> WordPiece), prepare.py (texts and labels -> arrays),
train.py (arrays and a teacher -> weights, resumable), export.py (weights -> checkpoint, int8), plot.py (losses),
evaluate.py (held-out quality), storage.py (what int8 costs). Nothing in onepass imports this.
"""
