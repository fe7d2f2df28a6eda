"""Language models that are asked about a query and a document in words: their templates, against sentence-transformers.

Rows of the tiny checkpoints take 256 tokens here, since templates are long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers.cross_encoder.modules as st
import torch
import transformers
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore
from tiny import QWEN_TEMPLATE, TEXT, Head, answering_checkpoint, change_json, refused, tiny_checkpoint
from tokenizers import Tokenizer

from onepass import Encoder
from onepass.errors import BadCheckpoint, BadSetting, InputTooLong, InvalidInput, UnsupportedOption, WrongTask
from onepass.tasks.rerank import Ranking

ROW = 256
QUERY = "Who wrote the letter, and where did it go?"
DOCUMENTS = [TEXT[2], "Bread.", "", " Café\r\nnaïve, 𝄞 שלום  ", "</s>?", TEXT[4]]

LOOP = """\
{%- for message in messages -%}
    {{ bos_token + message.role + ": " + message.content | trim }}</s>
{% endfor -%}
{% if add_generation_prompt %}<s>assistant:{% endif %}"""
STRUCTURED = """\
{{ (messages | selectattr("role", "eq", "document") | first).content[0].text }}
answers {{ (messages | selectattr("role", "eq", "query") | first).content[0].text }}? {{ tone | tojson }}:"""

TEMPLATES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen": (QWEN_TEMPLATE, {}),
    "loop": (LOOP, {"add_generation_prompt": True}),
    "structured": (STRUCTURED, {"tone": "Café"}),
}


def asked(folder: Path, template: str, given: dict[str, Any], head: Head = "next", **options: Any) -> CrossEncoder:
    """A tiny Qwen3 with a chat template, saved in `folder` as sentence-transformers does."""
    trunk = tiny_checkpoint(folder / "trunk", "qwen3", head, max_position_embeddings=ROW)
    change_json(trunk / "tokenizer_config.json", model_max_length=ROW, chat_template=template)
    task = "text-generation" if head == "next" else "sequence-classification"
    transformer = st.Transformer(
        str(trunk),
        transformer_task=task,
        processing_kwargs={"chat_template": given},
        modality_config=_modality("structured" if "content[0]" in template else "flat"),
        module_output_name="causal_logits" if head == "next" else "scores",
    )
    modules = [transformer, LogitScore(40, 12)] if head == "next" else [transformer]
    CrossEncoder(modules=modules, **options).save_pretrained(str(folder / "saved"))
    return CrossEncoder(str(folder / "saved"))


def _modality(form: str) -> dict[str, Any]:
    entry = {"method": "forward", "method_output_name": "logits"}
    return {"text": entry, "message": entry | {"format": form}}


def same(ours: Ranking, theirs: Sequence[Any]) -> bool:
    scores = pytest.approx([one["score"] for one in theirs], abs=1e-5)
    return [one.index for one in ours] == [one["corpus_id"] for one in theirs] and [one.score for one in ours] == scores


@pytest.mark.parametrize("head", ["next", "rerank"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_scores_are_those_of_sentence_transformers(tmp_path: Path, template: str, head: Head) -> None:
    theirs = asked(tmp_path, *TEMPLATES[template], head=head)
    ranking = theirs.rank(QUERY, DOCUMENTS)
    with Encoder(tmp_path / "saved", dtype="float32") as encoder:
        ours = encoder.rerank(QUERY, DOCUMENTS)
        pairs = encoder.classify([(QUERY, document) for document in DOCUMENTS])
    assert same(ours, ranking)
    scores = {one.index: one.score for one in ours}
    assert [score for ((_, score),) in pairs] == pytest.approx([scores[index] for index in range(len(DOCUMENTS))])


def test_an_instruction_is_the_system_s_message(tmp_path: Path) -> None:
    prompts = {"law": "Find the law.", "web": "Find a page"}
    theirs = asked(tmp_path, QWEN_TEMPLATE, {}, prompts=prompts, default_prompt_name="web")
    with Encoder(tmp_path / "saved", dtype="float32") as encoder:
        for ours, prompt in ((None, None), ("law", "Find the law."), ("Find a cat, please", "Find a cat, please")):
            ranking = theirs.rank(QUERY, DOCUMENTS, prompt=prompt)
            assert same(encoder.rerank(QUERY, DOCUMENTS, prompt=ours), ranking)


def test_a_template_without_a_place_for_an_instruction(tmp_path: Path) -> None:
    asked(tmp_path, STRUCTURED, {"tone": 1})
    with Encoder(tmp_path / "saved") as encoder, pytest.raises(InvalidInput) as caught:
        encoder.rerank(QUERY, DOCUMENTS, prompt="Find a cat")
    assert str(caught.value) == "this model's template has no place for a prompt; leave the prompt out"


def test_what_stands_behind_a_document_is_never_cut(tmp_path: Path) -> None:
    theirs = asked(tmp_path, QWEN_TEMPLATE, {})
    documents = [" ".join(TEXT), TEXT[1], " ".join(reversed(TEXT))]
    with Encoder(tmp_path / "saved", dtype="float32") as encoder:
        assert same(encoder.rerank(QUERY, documents), theirs.rank(QUERY, documents))
        with pytest.raises(InputTooLong, match=r"^input 0 has \d+ tokens, the model takes 256; shorten it"):
            encoder.rerank(QUERY, documents, truncate=None)
        with pytest.raises(InputTooLong, match=r"tokens stand around input 0, which leaves none of 256 for it"):
            encoder.rerank(" ".join(TEXT), documents)


def test_only_pairs_can_be_asked_about(tmp_path: Path) -> None:
    asked(tmp_path, QWEN_TEMPLATE, {})
    with Encoder(tmp_path / "saved") as encoder, pytest.raises(InvalidInput) as caught:
        encoder.classify("a letter")
    assert str(caught.value) == "this model is asked about pairs of texts; send a query with each document"


NOT_PUT_IN = (
    "the chat template does not put a query and a document into the text once and as they are; give the model one that "
    "does"
)
QUERY_AND_DOCUMENT = "{{ messages[0].content }} {{ messages[1].content }}"


@pytest.mark.parametrize(
    ("template", "given", "kind", "sentence"),
    [
        (
            "{{ messages[0].content }}",
            {},
            UnsupportedOption,
            NOT_PUT_IN,
        ),
        (
            "{{ messages[0].content | upper }} {{ messages[1].content }}",
            {},
            UnsupportedOption,
            NOT_PUT_IN,
        ),
        (
            "{{ messages[0].content }} {{ messages[1].content | replace('\n', ' ') }}",
            {},
            UnsupportedOption,
            "the chat template changes the texts it is given, which is not implemented",
        ),
        (
            "{{ raise_exception('only users speak') }}",
            {},
            BadCheckpoint,
            "the chat template cannot be filled with a query and a document: only users speak",
        ),
        (
            "{{ messages[0].content.__class__.__mro__ }}",
            {},
            BadCheckpoint,
            "the chat template cannot be filled with a query and a document: access to attribute '__class__' of 'str' "
            "object is unsafe.",
        ),
        (
            "{% for n in range(99999999) %}{% endfor %}",
            {},
            BadCheckpoint,
            "the chat template cannot be filled with a query and a document: 'range' is undefined",
        ),
        (
            "{{ messages[0",
            {},
            BadCheckpoint,
            "the chat template cannot be filled with a query and a document: unexpected end of template, expected ','.",
        ),
        (
            QUERY_AND_DOCUMENT,
            {"chat_template": "rerank"},
            UnsupportedOption,
            "processing_kwargs sets 'chat_template' for the chat template, which is not implemented",
        ),
    ],
)
def test_templates_that_are_refused(
    tmp_path: Path, template: str, given: dict[str, Any], kind: type[BadCheckpoint], sentence: str
) -> None:
    asked(tmp_path, QUERY_AND_DOCUMENT, {})
    saved = tmp_path / "saved"
    (saved / "chat_template.jinja").write_text(template)
    change_json(saved / "sentence_bert_config.json", processing_kwargs={"chat_template": given})
    assert refused(saved, kind) == sentence


def test_a_model_whose_template_is_lost(tmp_path: Path) -> None:
    asked(tmp_path, QUERY_AND_DOCUMENT, {})
    (tmp_path / "saved" / "chat_template.jinja").unlink()
    sentence = "the model's texts go through a chat template, but its tokenizer has none"
    assert refused(tmp_path / "saved", BadCheckpoint) == sentence


WORDS = {"qwen3": ("yes", "no"), "bge-gemma": ("Yes", None)}


def in_words(name: str, instruction: str | None, query: str, document: str) -> str:
    """As the cards of Qwen3-Reranker and of bge-reranker-v2-gemma have it."""
    if name == "qwen3":
        instruction = instruction or "Given a web search query, retrieve relevant passages that answer the query"
        return (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: '
            f"{instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
            "</think>\n\n"
        )
    instruction = instruction or (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )
    return f"<bos>A: {query}\nB: {document}\n{instruction}"


@pytest.mark.parametrize(("name", "family"), [("qwen3", "qwen3"), ("bge-gemma", "gemma")])
def test_language_models_that_rerank_by_name(tmp_path: Path, name: str, family: str) -> None:
    folder = answering_checkpoint(tmp_path, family)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    yes, no = (None if word is None else tokenizer.token_to_id(word) for word in WORDS[name])

    def logit(instruction: str | None, document: str) -> float:
        ids = tokenizer.encode(in_words(name, instruction, QUERY, document), add_special_tokens=False).ids
        with torch.no_grad():
            last = model(torch.tensor([ids])).logits[0, -1]
        return float(last[yes] - (0 if no is None else last[no]))

    documents = [TEXT[2], "Bread."]
    with Encoder(folder, dtype="float32", reranker=name) as encoder:
        assert encoder.tasks == ["classify", "rerank"]
        for instruction in (None, "Find the law."):
            ours = encoder.rerank(QUERY, documents, prompt=instruction, raw_scores=True)
            assert {one.index: one.score for one in ours} == pytest.approx(
                {index: logit(instruction, document) for index, document in enumerate(documents)}, abs=1e-4
            )
        (best, _) = encoder.rerank(QUERY, documents)
        assert best.score == pytest.approx(1 / (1 + np.exp(-max(logit(None, one) for one in documents))), abs=1e-5)


def test_a_language_model_reranks_only_where_that_is_said(tmp_path: Path, tiny_reranker: Path) -> None:
    folder = answering_checkpoint(tmp_path / "plain", "qwen3")
    with Encoder(folder) as encoder, pytest.raises(WrongTask) as wrong:
        encoder.rerank(QUERY, DOCUMENTS)
    assert str(wrong.value) == (
        "this model cannot rerank: its files say no more than that it is a language model; if it was trained to, load "
        "it with the setting reranker, qwen3 or bge-gemma"
    )
    assert refused(folder, BadSetting, reranker="qwen4") == "reranker 'qwen4' is unknown; choose qwen3 or bge-gemma"
    said = refused(tiny_reranker, BadSetting, reranker="qwen3")
    assert said.startswith("reranker is 'qwen3', but this model's files say what it does")
    other = tiny_checkpoint(tmp_path / "other", "qwen3", "next")
    said = refused(other, BadSetting, reranker="qwen3")
    assert said == "reranker is 'qwen3', but the model has no token 'yes'; it is another kind of model"
