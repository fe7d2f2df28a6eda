"""Cohere's routes: rerank and embed, each in two versions. Jina's rerank is Cohere's first one with more fields."""

from onepass.server.cohere import embed, rerank

OPERATIONS = (*rerank.OPERATIONS, *embed.OPERATIONS)
