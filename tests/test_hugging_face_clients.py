"""Frameworks that speak to Hugging Face's servers, unmodified, against the running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from haystack import Document
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from live import Live, listening, load
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as TeiRerank

from onepass.encoder import Encoder

TEXTS = ["A cat sits on the mat.", "The stock market fell.", "dogs bark"]


@pytest.fixture(scope="module")
def encoders(tiny_embedder: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("embedder", tiny_embedder), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    """A server of the embedder alone: these clients name no model."""
    with listening(lambda: {"embedder": encoders["embedder"]}) as live:
        yield live


@pytest.fixture(scope="module")
def ranking(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: {"reranker": encoders["reranker"]}) as live:
        yield live


@pytest.mark.parametrize("api", ["text_embeddings_inference", "inference_endpoints"])
def test_haystack_embedders(live: Live, encoders: dict[str, Encoder], api: str) -> None:
    expected = encoders["embedder"].embed(TEXTS)
    text = HuggingFaceAPITextEmbedder(api_type=api, api_params={"url": live.url}, token=None, normalize=True)
    assert np.allclose(text.run(TEXTS[0])["embedding"], expected[0], atol=1e-6)
    documents = HuggingFaceAPIDocumentEmbedder(
        api_type=api, api_params={"url": live.url}, token=None, normalize=True, truncate=True, progress_bar=False
    )
    found = documents.run([Document(content=text) for text in TEXTS])["documents"]
    assert np.allclose(np.array([document.embedding for document in found], float), expected, atol=1e-6)


async def test_haystack_embedders_awaited(live: Live, encoders: dict[str, Encoder]) -> None:
    text = HuggingFaceAPITextEmbedder(
        api_type="text_embeddings_inference", api_params={"url": f"{live.url}/models/embedder"}, token=None
    )  # which does not ask for length 1 by itself
    found = await text.run_async(TEXTS[0])
    assert np.allclose(found["embedding"], encoders["embedder"].embed(TEXTS[0], normalize=False), atol=1e-5)


def test_haystack_ranker(ranking: Live, encoders: dict[str, Encoder]) -> None:
    ranker = HuggingFaceTEIRanker(url=ranking.url, top_k=2, token=None)
    found = ranker.run(query="cat", documents=[Document(content=text) for text in TEXTS])["documents"]
    expected = encoders["reranker"].rerank("cat", TEXTS, top_n=2)
    assert [document.content for document in found] == [TEXTS[one.index] for one in expected]
    assert [document.score for document in found] == pytest.approx([one.score for one in expected], abs=1e-6)


def test_llama_index_embeddings(live: Live, encoders: dict[str, Encoder]) -> None:
    model = TextEmbeddingsInference(model_name="embedder", base_url=live.url)
    expected = encoders["embedder"].embed(TEXTS)
    assert np.allclose(model.get_text_embedding_batch(TEXTS), expected, atol=1e-6)
    assert np.allclose(model.get_query_embedding(TEXTS[0]), expected[0], atol=1e-6)


async def test_llama_index_embeddings_awaited(live: Live, encoders: dict[str, Encoder]) -> None:
    model = TextEmbeddingsInference(model_name="embedder", base_url=live.url)
    found = await model.aget_text_embedding_batch(TEXTS)
    assert np.allclose(found, encoders["embedder"].embed(TEXTS), atol=1e-6)


def test_llama_index_rerank(ranking: Live, encoders: dict[str, Encoder]) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in TEXTS]
    found = TeiRerank(base_url=ranking.url, top_n=2).postprocess_nodes(nodes, query_str="cat")
    expected = encoders["reranker"].rerank("cat", TEXTS, top_n=2)
    assert [node.text for node in found] == [TEXTS[one.index] for one in expected]
    assert np.allclose([node.score for node in found], [one.score for one in expected], atol=1e-6)


def test_langchain_embeddings(live: Live, encoders: dict[str, Encoder]) -> None:
    """Its class takes names on the hub only; it speaks to a server through the client that it holds."""
    langchain = pytest.importorskip("langchain_huggingface", reason="it wants huggingface_hub below 2")
    embeddings = langchain.HuggingFaceEndpointEmbeddings(model="org/model", huggingfacehub_api_token="none")
    embeddings.client = huggingface_hub.InferenceClient(live.url)
    expected = encoders["embedder"].embed(TEXTS)
    assert np.allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
    assert np.allclose(embeddings.embed_query(TEXTS[0]), expected[0], atol=1e-6)
