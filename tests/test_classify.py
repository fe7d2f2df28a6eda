"""Labels of the caller's own, beside transformers' zero-shot pipeline and language models; long texts in windows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import ENGINES
from tiny import KINDS, SEVERAL, TEXT, Family, heads_checkpoint, tiny_checkpoint
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

from onepass import Encoder
from onepass.engines.arithmetic import softmax
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.model.own_heads import write_heads
from onepass.schedule.row import Ask
from onepass.tasks.classify import Scores, classify
from onepass.tasks.labels import Long

NLI = ("contradiction", "neutral", "ENTAILMENT")
LABELS = ["trains", "a river", "bread", "café 🎬"]
SHORT = "The miller counts sacks of flour."
LONG = " ".join(TEXT)
LONGS: tuple[Long, ...] = ("mean", "max")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classify")


@pytest.fixture(scope="module")
def nli(place: Path) -> Iterator[Encoder]:
    with Encoder(tiny_checkpoint(place / "nli", "bert", "classify", labels=NLI), dtype="float32") as encoder:
        yield encoder


@pytest.fixture(scope="module")
def masked(place: Path) -> Iterator[Encoder]:
    with Encoder(tiny_checkpoint(place / "masked", "roberta", "fill"), dtype="float32") as encoder:
        yield encoder


@pytest.fixture(scope="module")
def causal(place: Path) -> Iterator[Encoder]:
    with Encoder(tiny_checkpoint(place / "causal", "qwen3", "next"), dtype="float32") as encoder:
        yield encoder


def same(ours: Scores, theirs: dict[str, Any]) -> None:
    assert [label for label, _ in ours] == theirs["labels"]
    assert [score for _, score in ours] == pytest.approx(theirs["scores"], abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("names", [NLI, ("entailed", "not")])
def test_labels_that_a_text_entails_as_the_pipeline(
    tmp_path: Path, family: Family, names: Sequence[str], engine: str
) -> None:
    """Long texts are cut, hypotheses are not."""
    folder = tiny_checkpoint(tmp_path / "model", family, "classify", labels=names)
    theirs: Any = pipeline("zero-shot-classification", str(folder), device="cpu")
    texts = [TEXT[1], LONG, "שלום\r\nNaïve"]
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        for several in (False, True):
            rows = encoder.classify(iter(texts), labels=LABELS, multi_label=several)
            for ours, text in zip(rows, texts, strict=True):
                same(ours, theirs(text, candidate_labels=LABELS, multi_label=several))
        ours = encoder.classify(SHORT, labels=LABELS[:1], template="We speak of {}, don't we?")
        same(ours, theirs(SHORT, LABELS[:1], hypothesis_template="We speak of {}, don't we?"))


def expected(folder: Path, auto: Any, prompt: str, words: Sequence[str]) -> np.ndarray[Any, Any]:
    """Softmax over the first tokens of words, at the prompt's mask or behind its end, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=auto is AutoModelForMaskedLM)["input_ids"]
    if auto is AutoModelForCausalLM:  # the tiny decoders frame a text as RoBERTa does; nothing may follow the prompt
        ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
        place = -1
    else:
        place = int((ids[0] == tokenizer.mask_token_id).nonzero())
    columns = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    with torch.no_grad():
        scores = model(ids).logits[0, place, columns].softmax(-1).numpy()
    return np.asarray(scores)


def check(ours: Scores, labels: Sequence[str], theirs: np.ndarray[Any, Any]) -> None:
    found = dict(ours)
    assert [found[label] for label in labels] == pytest.approx(theirs.tolist(), abs=1e-4)
    assert [score for _, score in ours] == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_words_at_the_mask(tmp_path: Path, family: Family, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path / "model", family, "fill")
    brackets = KINDS[family].vocabulary == "wordpiece"
    mask, space = ("[MASK]", "") if brackets else ("<mask>", " ")
    labels = ["bread", "train", "film"]
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        for template in (f"{{}} This text is about {mask}.", f"It is {mask}: {{}}"):
            ours = encoder.classify(SHORT, labels=labels, template=template)
            words = [space + label for label in labels]
            check(ours, labels, expected(folder, AutoModelForMaskedLM, template.format(SHORT), words))
        assert encoder.classify([SHORT], labels=labels)[0] == encoder.classify(
            SHORT, labels=labels, template=f"{{}} This text is about {mask}."
        )


@pytest.mark.parametrize("template", ["{}\nThis text is about", "Review: {}\nIt was ", "{}"])
def test_words_behind_the_prompt(causal: Encoder, template: str) -> None:
    labels = ["bread", "train", "film"]
    ours = causal.classify([TEXT[3], "café"], labels=labels, template=template)
    for text, scores in zip([TEXT[3], "café"], ours, strict=True):
        prompt = template.format(text).rstrip()
        words = [f" {label}" for label in labels]
        check(scores, labels, expected(causal.checkpoint.path, AutoModelForCausalLM, prompt, words))
    if template.startswith("{}\n"):
        assert causal.classify(TEXT[3], labels=labels) == ours[0]


def test_the_template_is_never_cut(masked: Encoder, causal: Encoder) -> None:
    """What is cut or read in windows is the text, so that the words still stand where they are read."""
    for encoder in (masked, causal):
        job = encoder.job()
        (scores,) = asyncio.run(classify(job, [LONG], labels=["bread", "train"]))
        assert (job.usage.truncated, job.usage.windows) == (1, 0)
        assert max(job.usage.lengths) == 64
        assert sum(score for _, score in scores) == pytest.approx(1)
        with pytest.raises(InputTooLong, match=r"^input 1 has \d+ tokens, the model takes 64; shorten it or turn "):
            encoder.classify(["fox", LONG], labels=["bread", "train"], truncate=None)


@pytest.mark.parametrize("labels", [3, 40])
def test_a_text_is_cut_once_whatever_the_labels(nli: Encoder, labels: int, caplog: pytest.LogCaptureFixture) -> None:
    nli.classify([LONG, "fox", LONG], labels=[str(label) for label in range(labels)])
    assert caplog.messages == ["2 of 3 inputs were cut at 64 tokens"]


# Long texts.


@pytest.mark.parametrize("long", LONGS)
def test_windows_give_what_the_pieces_give(tiny_classifier: Path, long: Long) -> None:
    with Encoder(tiny_classifier, dtype="float32") as encoder:
        job = encoder.job()
        text = " ".join([LONG] * 60)
        (ours,) = asyncio.run(classify(job, [text], long=long, raw_scores=True))
        (scores,) = encoder.classify([text], long=long)
        ids = [token.id for token in encoder.tokenizer.tokens(text, special=False)]
        pieces = [ids[start : start + 62] for start in range(0, len(ids) - 8, 54)]
        outputs = asyncio.run(encoder.job().run(pieces, Ask("classify", finish="none")))
        labels = encoder.checkpoint.heads["classify"].labels
    assert len(ids) > 20_000
    assert job.usage.truncated == 0
    assert job.usage.windows == len(pieces) - 1
    logits = np.concatenate([values for (values,) in outputs])
    want = logits.mean(axis=0) if long == "mean" else logits.max(axis=0)
    assert [dict(ours)[label] for label in labels] == pytest.approx(want.tolist(), abs=1e-5)
    assert [dict(scores)[label] for label in labels] == pytest.approx(softmax(want).tolist(), abs=1e-5)


@pytest.mark.parametrize("long", LONGS)
def test_long_texts_with_labels_of_the_callers_own_are_not_cut(
    nli: Encoder, masked: Encoder, causal: Encoder, long: Long
) -> None:
    for encoder in (nli, masked, causal):
        job = encoder.job()
        long_scores, short = asyncio.run(classify(job, [LONG, "bread"], labels=["bread", "train"], long=long))
        assert job.usage.truncated == 0
        assert job.usage.windows > 1
        assert encoder.classify("bread", labels=["bread", "train"]) == short
        assert sum(score for _, score in long_scores) == pytest.approx(1)
    one, other = (dict(nli.classify(LONG, labels=LABELS, multi_label=True, long=way)) for way in LONGS)
    assert all(one[label] <= other[label] for label in LABELS)
    assert one != other


# Which scores.


def test_scores_by_themselves_or_against_each_other(tiny_classifier: Path) -> None:
    with Encoder(tiny_classifier, dtype="float32") as encoder:
        logits = dict(asyncio.run(classify(encoder.job(), ["fox"], raw_scores=True))[0])
        alone = dict(encoder.classify("fox", multi_label=True))
        assert alone == pytest.approx({label: 1 / (1 + np.exp(-value)) for label, value in logits.items()}, abs=1e-6)
        assert encoder.classify("fox", multi_label=False) == encoder.classify("fox")


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": []}, EmptyInput, "^labels is an empty list; send at least one$"),
        ({"labels": "a, b"}, InvalidInput, "^labels is a str; send a list of strings$"),
        ({"labels": ["a", " "]}, EmptyInput, "^label 1 is empty; send some text$"),
        ({"labels": ["a", 5]}, InvalidInput, "^label 1 is a int; send a string$"),
        ({"labels": ["a", "b", "a"]}, InvalidInput, "^label 2 is 'a' like an earlier one; send each label once$"),
        ({"labels": ["\ud800"]}, InvalidInput, "^label 0 is not Unicode text: it holds a lone surrogate at char"),
        ({"labels": ["a"], "template": "about"}, InvalidInput, r"^template 'about' has 0 slots {}; it needs one$"),
        ({"labels": ["a"], "template": "{} {}"}, InvalidInput, r"^template '{} {}' has 2 slots {}; it needs one$"),
        ({"labels": ["a"], "template": 5}, InvalidInput, "^template is a int; send a string$"),
        ({"labels": ["a"], "template": "{0.__class__}"}, InvalidInput, "has 0 slots"),
        ({"template": "{}"}, InvalidInput, "^template is for labels of your own; give labels, or leave it out$"),
        ({"long": "middle"}, InvalidInput, "^long is 'middle'; choose cut, mean, max$"),
        (
            {"labels": ["a"], "template": "{} is" + " very" * 60},
            InputTooLong,
            r"^the second text of input 0 has \d+ tokens and is kept whole, which leaves none of 61 for the first; sh",
        ),
        (
            {"labels": ["a"], "template": "{} is" + " very" * 50, "long": "mean"},
            InputTooLong,
            r"^input 0 leaves \d+ tokens of a row for each window, which must be more than the overlap of 8; shorten",
        ),
    ],
)
def test_bad_options(nli: Encoder, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nli.classify([LONG], **options)
    assert nli.device.admission.reserved == 0


def test_bad_texts(nli: Encoder) -> None:
    with pytest.raises(InvalidInput, match="^input 1 is a tuple of 2; with labels of your own, send a string$"):
        nli.classify(["a", ("b", "c")], labels=["d"])
    with pytest.raises(EmptyInput, match="^input 1 is empty; send some text$"):
        nli.classify(["a", ""], labels=["d"])
    with pytest.raises(InvalidInput, match="^input 1 is not Unicode text"):
        nli.classify(["a", "\ud800"], labels=["d", "e", "f"])
    with pytest.raises(InputTooLong, match=r"^input 2 has \d+ tokens"):
        nli.classify(["a", "b", LONG], labels=["d", "e", "f"], truncate=None)


def test_bad_words(masked: Encoder, causal: Encoder) -> None:
    with pytest.raises(InvalidInput, match=r"^template '{}' holds 0 masks; this model needs one <mask> in it$"):
        masked.classify("fox", labels=["a"], template="{}")
    with pytest.raises(InvalidInput, match="^labels 'train' and 'train!' begin with the same token '.train', which is"):
        causal.classify("fox", labels=["bread", "train", "train!"])
    with pytest.raises(InvalidInput, match="^multi_label cannot be had of a language model, whose words are weighed"):
        masked.classify("fox", labels=["a"], multi_label=True)
    with pytest.raises(InputTooLong, match="^99 tokens stand around input 0, which leaves none of 64 for it; shorten"):
        causal.classify("fox", labels=["a"], template="{}" + "," * 97)
    with pytest.raises(WrongTask, match="^this model has no labels of its own; name some in labels$"):
        masked.classify("fox")
    assert masked.tasks[-3:] == ["fill", "log_probs", "classify"]


def test_a_word_that_the_vocabulary_lacks(place: Path) -> None:
    folder = tiny_checkpoint(place / "words", "bert", "fill")
    message = "^label '🎬' gives no token of this model's vocabulary; choose another word$"
    with Encoder(folder) as encoder, pytest.raises(InvalidInput, match=message):
        encoder.classify("fox", labels=["bread", "🎬"])


def test_models_that_cannot(tiny_classifier: Path, tiny_embedder: Path) -> None:
    with (
        Encoder(tiny_classifier) as encoder,
        pytest.raises(
            WrongTask,
            match=r"^this model cannot score labels of yours: none of its own \(negative, neutral, positive\) begins",
        ),
    ):
        encoder.classify("fox", labels=["a"])
    with Encoder(tiny_embedder) as encoder, pytest.raises(WrongTask, match="^this model cannot classify; it can embed"):
        encoder.classify("fox", labels=["a"])


def test_labels_by_their_vectors(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    write_heads(folder, SEVERAL, defaults={"labels": "embed"})
    prompts = {"prompts": {"any": "Cats: "}, "default_prompt_name": "any"}  # as embed puts it before texts and labels
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    labels, texts = ["cats", "the weather", "trains"], ["Cats sleep for sixteen hours.", "It rains.", "x"]
    with Encoder(folder, dtype="float32") as encoder:
        found = encoder.classify(texts, labels=labels)
        for text, scores in zip(texts, found, strict=True):
            cosines = np.array([encoder.similarity(text, label)[0, 0] for label in labels]) / 0.05
            expected = np.exp(cosines - cosines.max()) / np.exp(cosines - cosines.max()).sum()
            assert [score for _, score in scores] == sorted((score for _, score in scores), reverse=True)
            np.testing.assert_allclose([dict(scores)[label] for label in labels], expected, atol=1e-4)
        inside = encoder.classify("It rains.", labels=labels, template="a text on {}")
        around = encoder.classify("It rains.", labels=[f"a text on {label}" for label in labels])
        np.testing.assert_allclose([score for _, score in inside], [score for _, score in around], atol=1e-6)
        inferred = encoder.classify("It rains.", labels=labels, head="inference")
        assert dict(inferred) != dict(encoder.classify("It rains.", labels=labels))
        for options, words in (
            ({"labels": ["cats"]}, "at least two labels"),
            ({"labels": labels, "multi_label": True}, "at least two labels"),
            ({"labels": labels, "long": "mean"}, "use 'cut'"),
        ):
            with pytest.raises(InvalidInput, match=words):
                encoder.classify("It rains.", **options)
