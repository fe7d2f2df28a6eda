"""Clients that want an older `cohere` than the newest, run by test_frameworks.py in an interpreter that finds that one.

Their answers from the server at the address given go to standard output as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cohere
import langchain_cohere
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.cohere import CohereEmbedding
from llama_index.postprocessor.cohere_rerank import CohereRerank


def answers(url: str, texts: list[str]) -> dict[str, Any]:
    langchain = langchain_cohere.CohereEmbeddings(model="prompted", cohere_api_key="none", base_url=url)
    compressor = langchain_cohere.CohereRerank(model="reranker", cohere_api_key="none", base_url=url, top_n=2)
    found = compressor.compress_documents([Document(text) for text in texts], "cat")
    ranker = CohereRerank(model="reranker", api_key="none", base_url=url, top_n=2)
    nodes = ranker.postprocess_nodes([NodeWithScore(node=TextNode(text=text)) for text in texts], query_str="cat")
    vectors = CohereEmbedding(model_name="embed-english-v3.0", api_key="none", base_url=url)
    return {
        "cohere": cohere.__version__,
        "langchain documents": langchain.embed_documents(texts),
        "langchain query": langchain.embed_query(texts[0]),
        "langchain rerank": [[one.page_content, one.metadata["relevance_score"]] for one in found],
        "llama-index rerank": [[one.text, one.score] for one in nodes],
        "llama-index embed": vectors.get_text_embedding_batch(texts),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answers(sys.argv[1], sys.argv[2:])))
