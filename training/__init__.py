"""The recipe of the embedded model: from a folder of public data to a checkpoint of onepass's own.

    python -m training ../shared/data/permissive out/mini

The stages, each resumable by itself: vocabulary.py (words -> WordPiece), prepare.py (texts and labels -> arrays),
train.py (arrays and a teacher -> weights), export.py (weights -> checkpoint, int8). Nothing in onepass imports this.
"""
