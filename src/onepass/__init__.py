"""onepass: embeddings, reranking and classification with encoder models, in one pass and without PyTorch."""

from onepass.encoder import Encoder
from onepass.errors import OnepassError

__all__ = ["Encoder", "OnepassError", "__version__"]
__version__ = "0.1.0"
