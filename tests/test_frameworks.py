"""Unmodified components of LangChain, LlamaIndex and Haystack against the running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import Live, listening, load

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # nothing leaves the machine

from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.dataclasses import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder
from haystack_integrations.components.rankers.jina import JinaRanker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.jinaai import JinaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.postprocessor.jinaai_rerank import JinaRerank

from onepass.encoder import Encoder

TEXTS = ["a cat is an animal", "the market is closed", "dogs bark"]
KEY = Secret.from_token("none")
OLDER = Path(__file__).parents[1] / "build" / "older-clients"


@pytest.fixture(scope="module")
def encoders(tiny_prompted: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("prompted", tiny_prompted), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    named = encoders | {"embed-english-v3.0": encoders["prompted"]}  # LlamaIndex knows no other names of Cohere's
    with listening(lambda: named) as live:
        yield live


@pytest.fixture(scope="module")
def plain(encoders: dict[str, Encoder]) -> Any:
    return encoders["prompted"].embed(TEXTS)


@pytest.fixture(scope="module")
def ranked(encoders: dict[str, Encoder]) -> list[tuple[str, float]]:
    """The two documents that answer "cat" best, and how well."""
    return [(TEXTS[one.index], one.score) for one in encoders["reranker"].rerank("cat", TEXTS, top_n=2)]


def agree(found: Any, expected: list[tuple[str, float]]) -> bool:
    """Whether texts and scores are the same, in the same order."""
    texts, scores = zip(*found, strict=True)
    return list(texts) == [text for text, _ in expected] and np.allclose(
        scores, [score for _, score in expected], atol=1e-6
    )


def test_llama_index_openai_like(live: Live, plain: Any) -> None:
    embedding = OpenAILikeEmbedding(model_name="prompted", api_base=f"{live.url}/v1", api_key="none")
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), plain, atol=1e-6)
    assert np.allclose(embedding.get_query_embedding(TEXTS[0]), plain[0], atol=1e-6)


@pytest.mark.parametrize("encoding", ["float", "binary", "ubinary"])
def test_llama_index_jina_embeddings(live: Live, encoders: dict[str, Encoder], encoding: str) -> None:
    embedding = JinaEmbedding(
        model="prompted", api_key="none", task="retrieval.query", dimensions=16, encoding_documents=encoding
    )
    embedding._api.api_url = f"{live.url}/v1/embeddings"  # the class has no argument for it
    expected = encoders["prompted"].embed(TEXTS, input_type="query", dimensions=16)
    found = embedding.get_text_embedding_batch(TEXTS)
    assert np.allclose(found, expected if encoding == "float" else expected > 0, atol=1e-6)


def test_llama_index_jina_late_chunks_and_errors(live: Live, encoders: dict[str, Encoder]) -> None:
    embedding = JinaEmbedding(model="prompted", api_key="none", late_chunking=True)
    embedding._api.api_url = f"{live.url}/v1/embeddings"
    (expected,) = encoders["prompted"].embed_chunks([TEXTS], normalize=True)
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), expected, atol=1e-6)
    with pytest.raises(RuntimeError, match="input 0 is empty|no tokens"):
        embedding.get_text_embedding("")


def test_llama_index_jina_rerank(live: Live, ranked: list[tuple[str, float]]) -> None:
    ranker = JinaRerank(model="reranker", api_key="none", base_url=f"{live.url}/v1", top_n=2)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = ranker.postprocess_nodes(nodes, query_str="cat")
    assert agree([(one.text, one.score) for one in found], ranked)
    with pytest.raises(RuntimeError, match="the query is empty"):
        ranker.postprocess_nodes(nodes, query_str="")


def test_haystack_openai(live: Live, plain: Any) -> None:
    where: Any = {"api_base_url": f"{live.url}/v1", "api_key": KEY, "model": "prompted"}
    one = OpenAITextEmbedder(**where).run(TEXTS[0])
    assert np.allclose(one["embedding"], plain[0], atol=1e-6)
    assert one["meta"]["usage"]["prompt_tokens"] > 0
    many = OpenAIDocumentEmbedder(**where, progress_bar=False).run([Document(content=text) for text in TEXTS])
    assert np.allclose([one.embedding for one in many["documents"]], plain, atol=1e-6)


def test_haystack_jina(live: Live, encoders: dict[str, Encoder], ranked: list[tuple[str, float]]) -> None:
    where: Any = {"base_url": f"{live.url}/v1/embeddings", "api_key": KEY, "model": "prompted"}
    prompted = encoders["prompted"]
    one = JinaTextEmbedder(**where, task="retrieval.query").run(TEXTS[0])
    assert np.allclose(one["embedding"], prompted.embed(TEXTS[0], input_type="query"), atol=1e-6)
    assert one["meta"]["usage"]["total_tokens"] > 0
    documents = [Document(content=text) for text in TEXTS]
    many = JinaDocumentEmbedder(**where, task="retrieval.passage", progress_bar=False).run(documents)
    expected = prompted.embed(TEXTS, input_type="document")
    assert np.allclose([one.embedding for one in many["documents"]], expected, atol=1e-6)
    ranker = JinaRanker(base_url=f"{live.url}/v1/rerank", api_key=KEY, model="reranker", top_k=2)
    found = ranker.run("cat", documents)
    assert agree([(one.content, one.score) for one in found["documents"]], ranked)
    assert found["meta"]["usage"]["total_tokens"] > 0


@pytest.mark.skipif(not OLDER.is_dir(), reason="build/older-clients is not there; `make test` installs it")
def test_clients_of_an_older_cohere(live: Live, encoders: dict[str, Encoder], ranked: list[tuple[str, float]]) -> None:
    """langchain-cohere wants cohere 5, LlamaIndex's one below 7: beside them, in an interpreter of their own."""
    paths = os.pathsep.join([str(OLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("older_clients.py"), live.url, *TEXTS],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    prompted = encoders["prompted"]
    assert found["cohere"].startswith("5.")
    documents = prompted.embed(TEXTS, input_type="document")
    assert np.allclose(found["langchain documents"], documents, atol=1e-6)
    assert np.allclose(found["langchain query"], prompted.embed(TEXTS[0], input_type="query"), atol=1e-6)
    assert np.allclose(found["llama-index embed"], documents, atol=1e-6)
    assert agree(found["langchain rerank"], ranked)
    assert agree(found["llama-index rerank"], ranked)
