"""onepass: embeddings, reranking and classification with encoder models, in one pass and without PyTorch."""

__version__ = "0.1.0"
