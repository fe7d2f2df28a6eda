"""`Encoder` end to end beside sentence-transformers and transformers: tokenizer, engine, heads and answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_text import passages
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from tiny import Family, tiny_checkpoint, write_json
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from onepass import Encoder
from onepass.blocking import wait
from onepass.errors import BadSetting, Cancelled, EmptyInput, InputTooLong, InvalidInput, TokenOutOfRange, WrongTask
from onepass.schedule.device import Device
from onepass.schedule.fit import EncodeOptions

DOCUMENTS = [
    "The fox is red.",
    "A lazy dog sleeps all day in the warm sun, and does not care.",
    "",
    "Mountains are high and cold; few foxes live there, though some do.",
]


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Iterator[Encoder]:
    with Encoder(minilm) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def exact(minilm: Path) -> Iterator[Encoder]:
    with Encoder(minilm, dtype="float32") as encoder:
        yield encoder


@pytest.fixture(scope="module")
def tiny(tiny_embedder: Path) -> Iterator[Encoder]:
    with Encoder(tiny_embedder) as encoder:
        yield encoder


# The same numbers as the reference implementations.


@pytest.fixture(scope="module")
def two_hundred(minilm: Path) -> tuple[list[str], np.ndarray]:
    """200 real texts of 1 to 512 tokens and their vectors by sentence-transformers."""
    texts = [*passages(199, most_words=300), "fox"]
    model = SentenceTransformer(str(minilm), device="cpu")
    model.max_seq_length = 512
    lengths = [len(ids) for ids in model.tokenizer(texts)["input_ids"]]
    assert min(lengths) <= 3
    assert max(lengths) > 400
    return texts, model.encode(texts, batch_size=16)


def test_minilm_gives_the_vectors_of_sentence_transformers(
    minilm: Path, two_hundred: tuple[list[str], np.ndarray]
) -> None:
    texts, expected = two_hundred
    with Encoder(minilm, dtype="float32", max_length=512) as encoder:
        assert np.abs(encoder.embed(texts) - expected).max() < 1e-5


def test_minilm_in_bfloat16_keeps_the_direction(minilm: Path, two_hundred: tuple[list[str], np.ndarray]) -> None:
    texts, expected = two_hundred
    with Encoder(minilm, dtype="bfloat16", max_length=512) as encoder:
        vectors = encoder.embed(texts)
        cosines = (vectors * expected).sum(axis=1)
    assert cosines.min() >= 0.9999
    assert np.abs(vectors - expected).max() > 1e-5  # it really is bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_alone_equals_the_row_in_any_batch_on_any_cores(minilm: Path, dtype: str) -> None:
    texts = passages(40, most_words=60, seed=1)
    with Encoder(minilm, dtype=dtype, cores=2) as encoder, Encoder(minilm, dtype=dtype, cores=1) as one_core:
        together = encoder.embed(texts)
        assert np.array_equal(np.stack([encoder.embed(text) for text in texts]), together)
        assert np.array_equal(encoder.embed(texts[::-1])[::-1], together)
        assert np.array_equal(one_core.embed(texts), together)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"])
@pytest.mark.parametrize("engine", ["native", "reference", "torch"])
def test_a_classifier_gives_the_scores_of_transformers(tmp_path: Path, family: Family, engine: str) -> None:
    """Through tokenizer, trunk and head; single texts and pairs, cut to the model's length."""
    folder = tiny_checkpoint(tmp_path / "model", family, "classify", labels=("bad", "fair", "good"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pairs = [("a red fox", "the fox is red"), ("dog", "the lazy dog sleeps " * 40)]
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        got = encoder.classify(["the quick fox", *pairs])
        limit = encoder.checkpoint.max_length
    for scores, texts in zip(got, [("the quick fox",), *pairs], strict=True):
        inputs = tokenizer(*texts, return_tensors="pt", truncation="longest_first", max_length=limit)
        with torch.no_grad():
            expected = model(**inputs).logits.softmax(-1)[0].tolist()
        want = sorted(zip(("bad", "fair", "good"), expected, strict=True), key=lambda pair: -pair[1])
        assert [label for label, _ in scores] == [label for label, _ in want]
        assert [score for _, score in scores] == pytest.approx([score for _, score in want], rel=1e-4, abs=1e-6)


def test_several_labels_at_once_are_sigmoids(tiny_multilabel: Path) -> None:
    reference = pipeline("text-classification", str(tiny_multilabel), top_k=None, device="cpu")
    with Encoder(tiny_multilabel, dtype="float32") as encoder:
        got = encoder.classify("the quick fox")
    want: Any = reference("the quick fox")[0]
    assert [label for label, _ in got] == [entry["label"] for entry in want]
    assert [score for _, score in got] == pytest.approx([entry["score"] for entry in want], rel=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"])
def test_a_cross_encoder_ranks_as_sentence_transformers(tmp_path: Path, family: Family) -> None:
    folder = tiny_checkpoint(tmp_path / "model", family, "rerank")
    want: list[dict[str, Any]] = CrossEncoder(str(folder), device="cpu").rank("a fox in the cold", DOCUMENTS)
    with Encoder(folder, dtype="float32") as encoder:
        got = encoder.rerank("a fox in the cold", DOCUMENTS)
        assert encoder.rerank("a fox in the cold", DOCUMENTS, top_n=2) == got[:2]
    assert [one.index for one in got] == [entry["corpus_id"] for entry in want]
    assert [one.score for one in got] == pytest.approx([float(entry["score"]) for entry in want], rel=1e-4)


def test_similarity_is_the_cosine(exact: Encoder, minilm: Path) -> None:
    a, b = ["a cat", "the weather"], ["a kitten", "rain", "tax law"]
    model = SentenceTransformer(str(minilm), device="cpu")
    want = model.similarity(model.encode(a), model.encode(b)).numpy()
    assert np.abs(exact.similarity(a, b) - want).max() < 1e-5
    assert exact.similarity("a cat", b).shape == (1, 3)


# Options of embed.


def test_prompts_by_name_and_as_text(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model", "bert", "embed")
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "find: ", "passage": "text: "}, "default_prompt_name": "passage"},
    )
    model = SentenceTransformer(str(folder), device="cpu")
    with Encoder(folder, dtype="float32") as encoder:
        for given, want in [
            ("query", model.encode("fox", prompt_name="query")),
            (None, model.encode("fox")),
            ("look: ", model.encode("fox", prompt="look: ")),
        ]:
            assert np.abs(encoder.embed("fox", prompt=given) - want).max() < 1e-5
        with pytest.raises(
            InvalidInput, match="prompt 'quary' is not a prompt name of this model, which has query, pass"
        ):
            encoder.embed("fox", prompt="quary")


def test_dimensions_are_cut_and_made_length_one_again(embedder: Encoder) -> None:
    whole = embedder.embed("a fox")
    cut = embedder.embed("a fox", dimensions=64)
    assert np.allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-7)
    raw = embedder.embed("a fox", dimensions=64, normalize=False)
    assert np.linalg.norm(raw) != pytest.approx(1)
    assert np.allclose(raw / np.linalg.norm(raw), cut, atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, 385])
def test_dimensions_out_of_range(embedder: Encoder, dimensions: int) -> None:
    with pytest.raises(
        InvalidInput, match=rf"^dimensions is {dimensions}, this model gives 1 to 384; ask for a number between$"
    ):
        embedder.embed("a fox", dimensions=dimensions)


def test_precisions(embedder: Encoder) -> None:
    texts = passages(5, most_words=10)
    vectors = embedder.embed(texts)
    assert np.array_equal(embedder.embed(texts, precision="binary"), quantize_embeddings(vectors, "binary"))
    small = embedder.embed(texts, precision="int8")
    assert small.dtype == np.int8
    assert np.abs(small / 127 - vectors).max() <= 0.5 / 127 + 1e-6


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions_are_those_of_sentence_transformers(embedder: Encoder, precision: Any) -> None:
    texts = passages(9, most_words=10)
    vectors = embedder.embed(texts)
    ranges = np.stack([vectors[:6].min(0), vectors[:6].max(0)])  # which the last three pass
    given: dict[str, Any] = {"ranges": ranges} if precision.endswith("int8") else {}
    expected: Any = quantize_embeddings(vectors, precision, **given)
    found = embedder.embed(texts, precision=precision, **given)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_uint8_is_int8_and_128_more(embedder: Encoder) -> None:
    small, large = (embedder.embed("a fox", precision=precision) for precision in ("int8", "uint8"))
    assert large.dtype == np.uint8
    assert np.array_equal(small.astype(np.int16) + 128, large)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"precision": "int8", "normalize": False},
            "precision int8 needs vectors of length 1, or ranges; leave normalize on, or give them",
        ),
        (
            {"precision": "binary", "ranges": [[0], [1]]},
            "ranges are for the precisions int8 and uint8, not for binary; leave them out",
        ),
        (
            {"precision": "int8", "ranges": [[0, 1], [1, 2]]},
            "ranges has the shape [2, 2], the vectors need [2, 384]: lowest and highest values",
        ),
        (
            {"precision": "int8", "ranges": "wide"},
            "ranges is no array of numbers; send the lowest and the highest value of each dimension",
        ),
        (
            {"precision": "int8", "dimensions": 1, "ranges": [[2], [1]]},
            "ranges must hold finite numbers, in the first row none above the second; check their order",
        ),
        (
            {"prompt": "a: ", "input_type": "query"},
            "prompt 'a: ' and input_type 'query' both choose a prompt; give one of them",
        ),
        ({"input_type": "passage"}, "input_type 'passage' is unknown; choose document or query"),
    ],
)
def test_options_of_embed_that_do_not_fit(embedder: Encoder, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        embedder.embed("a fox", **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "find: ", "document": "text: "},
        {"clustering": "group: "},
        {},
    ],
    ids=lambda prompts: "-".join(prompts) or "none",
)
def test_input_types_choose_prompts_as_sentence_transformers_does(tmp_path: Path, prompts: dict[str, str]) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    saved = {"prompts": prompts, "default_prompt_name": "clustering" if "clustering" in prompts else None}
    write_json(folder / "config_sentence_transformers.json", saved)
    reference = SentenceTransformer(str(folder), device="cpu")
    texts = ["the train", "cats sleep"]
    with Encoder(folder, dtype="float32") as encoder:
        queries, documents = encoder.embed(texts, input_type="query"), encoder.embed(texts, input_type="document")
    np.testing.assert_allclose(queries, reference.encode_query(texts), atol=1e-4)
    np.testing.assert_allclose(documents, reference.encode_document(texts), atol=1e-4)


@pytest.mark.parametrize(
    "prompts", [{"passage": "text: ", "corpus": "no: "}, {"query": "find: ", "corpus": "text: "}], ids="-".join
)
def test_documents_may_be_called_passages_or_a_corpus(tmp_path: Path, prompts: dict[str, str]) -> None:
    """As encode_document says it does; but sentence-transformers 6.2 gives every model an empty "document" first."""
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    with Encoder(folder) as encoder:
        found = encoder.embed("the train", input_type="document")
        assert np.array_equal(found, encoder.embed("the train", prompt="text: "))


def test_one_text_gives_one_row_and_token_ids_are_taken(embedder: Encoder) -> None:
    assert embedder.embed("a fox").shape == (384,)
    ids = embedder.tokenizer.encode(["a fox"], EncodeOptions())[0].ids[1:-1].tolist()
    assert np.array_equal(embedder.embed([ids])[0], embedder.embed("a fox"))


# Ways of calling.


def test_it_works_inside_a_running_loop_and_awaited(embedder: Encoder) -> None:
    texts = passages(20, most_words=20)
    expected = embedder.embed(texts)

    async def main() -> None:
        assert np.array_equal(embedder.embed(texts), expected)
        rows = await asyncio.gather(*(embedder.aembed(text) for text in texts))
        assert np.array_equal(np.stack(rows), expected)

    asyncio.run(main())


def test_a_thread_that_ends_leaves_no_event_loop_open(embedder: Encoder) -> None:
    """Blocking calls run on a loop of their thread."""
    loops: list[Any] = []

    async def which() -> None:
        loops.append(asyncio.get_running_loop())

    def call() -> None:
        embedder.embed("fox")
        wait(which())
        wait(which())

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert loops[0] is loops[1]
    assert loops[0].is_closed()


def test_an_interrupted_call_is_cancelled() -> None:
    seen: list[str] = []

    async def interrupted() -> None:
        try:
            asyncio.get_running_loop().call_soon(interrupt)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait(interrupted())
    assert seen == ["cancelled"]


def test_an_iterator_is_drawn_only_as_there_is_room(tiny_embedder: Path) -> None:
    device = Device(1, queue_tokens=2000)
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        for drawn in range(1, 3001):
            yield "the quick brown fox"
            assert drawn - done() <= 2000  # far fewer are ahead of the engine than the iterator could give

    computed: list[int] = []
    device.observers.append(lambda seen: computed.append(seen.rows))

    def done() -> int:
        return sum(computed)

    with Encoder(tiny_embedder, device=device) as encoder:
        assert encoder.embed(endless()).shape == (3000, 32)
    assert drawn == 3000
    device.close()


def test_many_threads_share_an_encoder(tiny: Encoder) -> None:
    texts = passages(30, most_words=20)
    expected = tiny.embed(texts)
    wrong = []

    def work() -> None:
        for _ in range(5):
            if not np.array_equal(tiny.embed(texts), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_encoder_says_so_and_a_forgotten_one_is_freed(tiny_embedder: Path) -> None:
    device = Device(1)
    encoder = Encoder(tiny_embedder, device=device)
    encoder.embed("fox")
    encoder.close()
    encoder.close()
    with pytest.raises(Cancelled, match="^the encoder was closed$"):
        encoder.embed("fox")
    engine = weakref.ref(Encoder(tiny_embedder, device=device).engine)
    gc.collect()
    assert engine() is None
    device.close()


def _embed_in_child(encoder: Encoder, out: multiprocessing.Queue[np.ndarray]) -> None:
    out.put(encoder.embed(["the quick fox"] * 3))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_encoder_works_in_a_forked_child(tiny: Encoder) -> None:
    expected = tiny.embed(["the quick fox"] * 3)
    context = multiprocessing.get_context("fork")
    out: multiprocessing.Queue[np.ndarray] = context.Queue()
    child = context.Process(target=_embed_in_child, args=(tiny, out))
    child.start()
    try:
        assert np.array_equal(out.get(timeout=60), expected)
    finally:
        child.join(10)


# Bad input.


def test_what_was_cut_is_reported(tiny: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "onepass"):
        tiny.embed(["fox", "fox " * 200])
    assert caplog.messages == ["1 of 2 inputs were cut at 64 tokens"]
    with pytest.raises(
        InputTooLong, match=r"^input 1 has \d+ tokens, the model takes 64; shorten it or turn truncation on$"
    ):
        tiny.embed(["fox", "fox " * 200], truncate=None)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], EmptyInput, "^the input is an empty list; send at least one text$"),
        (iter([]), EmptyInput, "^the input is an empty list; send at least one text$"),
        ("", EmptyInput, "^input 0 is empty; send some text$"),
        (["fox", ""], EmptyInput, "^input 1 is empty; send some text$"),
        (
            ["\ud800"],
            InvalidInput,
            "^input 0 is not Unicode text: it holds a lone surrogate at character 0; send well-f",
        ),
        (
            [[5, 10**6]],
            TokenOutOfRange,
            r"^token id 1000000 of input 0 is outside this model's vocabulary of \d+ ids; ",
        ),
        ([3.5], InvalidInput, "^input 0 is a float; send a string or a list of token ids$"),
    ],
)
def test_bad_texts(tiny: Encoder, texts: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny.embed(texts)
    assert tiny.device.admission.reserved == 0


def test_nul_bytes_and_a_word_of_a_megabyte_are_text(exact: Encoder, minilm: Path) -> None:
    model = SentenceTransformer(str(minilm), device="cpu")
    assert np.abs(exact.embed("a\0b") - model.encode("a\0b")).max() < 1e-5
    assert np.abs(exact.embed("x" * 1_000_000) - model.encode("x" * 1_000_000)).max() < 1e-5


def test_a_task_the_model_cannot_do(tiny: Encoder, tiny_classifier: Path) -> None:
    with pytest.raises(WrongTask, match=r"^this model cannot classify; it can embed, similarity, rerank$"):
        tiny.classify("fox")
    with Encoder(tiny_classifier) as encoder:
        with pytest.raises(WrongTask, match=r"cannot embed; it can classify$"):
            encoder.embed("fox")
        with pytest.raises(WrongTask, match=r"cannot rerank; it can classify$"):
            encoder.rerank("fox", ["dog"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"device": "tpu"}, "^device 'tpu' is unknown; choose auto, cpu, cuda, cuda:1 "),
        ({"dtype": "int4"}, "^dtype 'int4' is unknown; choose auto, float32, bfloat16, float16$"),
        ({"engine": "tensorrt"}, "^engine 'tensorrt' is unknown; choose auto, native, reference, torch$"),
        ({"dtype": "float16"}, "^dtype 'float16' is unknown to the native engine; choose float32 or bfloat16$"),
        (
            {"engine": "reference", "dtype": "bfloat16"},
            "^the reference engine computes in float32 only, not bfloat16; ",
        ),
        (
            {"adapter": "poetry"},
            "^adapter is 'poetry', which this model does not have; it has none; leave the setting out$",
        ),
        ({"cores": 0}, "^cores is 0; give at least 1$"),
        ({"max_length": 65}, "^max_length is 65, but this model takes rows of 1 to 64 tokens; choose one of these$"),
    ],
)
def test_options_that_do_not_exist(tiny_embedder: Path, option: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Encoder(tiny_embedder, **option)  # type: ignore[arg-type]


def test_info_says_what_was_chosen_and_why(embedder: Encoder) -> None:
    info = embedder.info()
    assert info["tasks"] == ["embed", "similarity", "rerank"]
    assert (info["dimensions"], info["max_length"], info["family"]) == (384, 256, "bert")
    assert info["choices"]["engine"] == {"value": "native", "reason": "the default on a CPU"}
    assert info["choices"]["dtype"]["reason"]
    assert info["choices"]["device"]["value"] == "cpu"
    assert info["choices"]["device"]["reason"]
    assert 256 <= info["micro_batch_tokens"] <= 1024
    assert info["tokens_per_second"] > 0
