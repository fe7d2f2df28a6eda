"""The recipe of the embedded model on made-up words: both stages run, resume, and export what onepass reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from onepass import Encoder
from training.batches import Named
from training.export import HEADS, export
from training.held import names_found, spans
from training.model import SENTIMENTS, TAGS, Mini, Shape, Tagger, Trunk, parted
from training.objectives import Learner, by_word, kept, named
from training.shapes import KINDS, kind_of
from training.store import Layout, Ragged, Store
from training.train import NAMED, load_weights, main, nearest
from training.vocabulary import trained

WORDS = [first + second for first in ("ba", "do", "ki", "Lu", "me") for second in ("ra", "ten", "sil", "mog", "vep")]
TEXT = "Lura kiten, doten mevep basil kimog."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    from collections import Counter

    return trained({"all": (1.0, Counter(dict.fromkeys([*WORDS, ".", ","], 50)))}, 60)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """What prepare.py writes, of random texts, and a teacher of random weights."""
    random = np.random.default_rng(0)
    texts = [random.integers(len(WORDS), size=random.integers(3, 12)).astype(np.uint32) for _ in range(400)]

    def numbers(columns: int, labels: int, rows: int = 300) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
        found = random.integers(400, size=(rows, columns))
        found[:, -1] = random.integers(labels, size=rows)
        return found.astype(np.int32)

    pieces = [encoding.ids for encoding in tokenizer.encode_batch_fast(WORDS, add_special_tokens=False)]
    entries = [[number] for number in range(tokenizer.get_vocab_size())]
    table = Ragged.of(pieces, np.uint16)
    vocabulary = tokenizer.get_vocab()
    special = {name: vocabulary[f"[{name.upper()}]"] for name in ("pad", "cls", "sep", "mask")}
    special |= {f"teacher_{name}": special[name] for name in ("cls", "sep", "mask")} | {"vocabulary": len(entries)}
    entities = np.stack([np.arange(300), random.integers(2, size=300), np.full(300, 4)], axis=1).astype(np.int32)
    answers = np.concatenate([numbers(2, 400), np.zeros((300, 1), np.int32), np.ones((300, 1), np.int32)], axis=1)
    store = Store(
        {"cased": table, "lower": table, "teacher": table, "entries": Ragged.of(entries, np.uint16)},
        Ragged.of(texts, np.uint32),
        {
            name: np.arange(400, dtype=np.int32)
            for name in ("passages", "short", "queries", "texts", "wordlist", "phrases", "names", *NAMED)
        },
        {
            "pairs.titles": numbers(3, 300),
            "pairs.rqe": numbers(3, 300, 20),
            "sentiment": numbers(2, 3),
            "sentiment.short": numbers(2, 3),
            "toxicity": numbers(2, 2),
            "nli": numbers(3, 3),
            "nli.topics": numbers(3, 3),
            "entities": entities,
            "entities.held": np.arange(300, 320, dtype=np.int32),
            "answers": answers,
        },
        Ragged.of([random.integers(5, size=len(text)) for text in texts[:320]], np.uint8),
        special,
        np.array([kind_of(word) for word in WORDS], np.uint8),
    )
    store.save(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    teacher = Trunk(Shape(len(entries), 384, 1, 12, 64))
    save_file(
        {name: tensor.half().contiguous() for name, tensor in parted(teacher.state_dict()).items()},
        tmp_path / "teacher.safetensors",
    )
    return tmp_path


OPTIONS = ["--tokens", "768", "--layers", "1", "--inner", "32", "--every", "1", "--device", "cpu"]


def test_both_stages_then_a_checkpoint_with_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    main([str(folder), "--steps", "8", *OPTIONS])
    log = (folder / "log.jsonl").read_text().splitlines()
    assert len(log) == 8
    assert '"stage": 2' in log[-1]
    out = tmp_path / "checkpoint"
    export(folder, out, stored="float32")
    model = Mini(Shape(Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab_size(), 384, 1, 12, 32))
    model.load_state_dict(load_weights(folder / "weights"))
    with Encoder(out, dtype="float32", engine="reference") as encoder, torch.no_grad():
        assert list(encoder.heads) == list(HEADS)
        ids = torch.tensor([[token.id for token in encoder.tokenizer.tokens(TEXT)]])
        lengths = torch.tensor([ids.shape[1]])
        states = model.trunk(ids, lengths)
        np.testing.assert_allclose(encoder.embed(TEXT), model.vectors(states, lengths)[0], atol=2e-5)
        moods = dict(encoder.classify(TEXT))
        expected = model.sentiment(states, lengths).softmax(-1)[0]
        np.testing.assert_allclose([moods[label] for label in SENTIMENTS], expected, atol=1e-5)
        tags = encoder.tag(TEXT, aggregation="none", ignore_labels=[])
        most = model.entities(states).softmax(-1)[0, 1:-1].amax(-1)
        np.testing.assert_allclose([one.score for one in tags], most, atol=1e-5)
        np.testing.assert_allclose(encoder.multivector(TEXT), model.late(states)[0], atol=2e-5)
        lexical = model.lexical(states, lengths)[0]
        sparse = encoder.sparse(TEXT)
        assert len(sparse.ids) == int((lexical > 0).sum())
        np.testing.assert_allclose(sparse.weights, lexical[torch.as_tensor(np.array(sparse.ids))], atol=1e-5)


def test_training_goes_on_where_it_was_stopped(folder: Path) -> None:
    main([str(folder), "--steps", "2", "--save-every", "0.001", *OPTIONS])
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["step"] >= 1
    main([str(folder), "--steps", "3", *OPTIONS])
    steps = [line.split(",")[0] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == '{"step": 3'


def test_a_head_can_be_learned_alone_from_labels_and_from_the_tagger(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder), "--steps", "2", "--first", "0", *OPTIONS])
    for number in ("1", "2"):
        main([str(folder), "--steps", "2", "--tagger", number, *OPTIONS])
    before = load_weights(folder / "weights")
    begun = ["--first", "0", "--focus", "entities", f"--begin={folder / 'weights'}"]
    main([str(folder), "--steps", "8", *begun, *OPTIONS])
    assert "begun anew: nothing" in capsys.readouterr().out
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-8:]
    others = [{*line} - {"step", "seconds", "stage", "named", "f1"} for line in lines]
    assert all("named" in line for line in lines)
    assert all(len(other) == 2 for other in others)
    assert set.union(*others) == {"entities", "kept", "kept_answers", "masked"}
    after = load_weights(folder / "weights")
    assert not torch.equal(before["entities.out.weight"], after["entities.out.weight"])
    assert torch.equal(before["sparse.bias"], after["sparse.bias"])


def test_what_a_head_said_holds_the_others_and_not_the_one_that_learns(folder: Path) -> None:
    with pytest.raises(SystemExit, match="name their folder with --begin"):
        main([str(folder), "--steps", "1", "--focus", "sentiment", *OPTIONS])
    shape, generator = Shape(60, 384, 1, 12, 32), torch.Generator().manual_seed(0)
    model, before = Mini(shape).eval(), Mini(shape).eval()
    before.load_state_dict(model.state_dict())
    batch = {
        "text.ids": torch.randint(5, 60, (4, 16), generator=generator),
        "text.lengths": torch.tensor([16, 9, 4, 12]),
    }
    with torch.no_grad():
        same = [float(kept(Learner(model, None, before=before, focus=name), batch)) for name in (None, "sentiment")]
        model.sentiment.out.bias[0] += 3
        moved = [float(kept(Learner(model, None, before=before, focus=name), batch)) for name in (None, "sentiment")]
    assert moved[0] > same[0]
    assert moved[1] == same[1]


def test_pairs_are_laid_out_as_the_tokenizer_writes_them(folder: Path, tokenizer: Tokenizer) -> None:
    store = Store.load(folder)
    rows = [store.texts[number] for number in range(20)]
    seconds = [store.texts[number] for number in range(20, 40)]
    laid = Layout(store).lay(rows, "cased", 64, seconds)
    assert laid.types is not None
    for number, (first, second) in enumerate(zip(rows, seconds, strict=True)):
        said, beside = (" ".join(WORDS[word] for word in text) for text in (first, second))
        wanted = tokenizer.encode(said, beside)
        length = laid.lengths[number]
        assert laid.ids[number, :length].tolist() == wanted.ids
        assert laid.types[number, :length].tolist() == wanted.type_ids
    cut = Layout(store).lay(rows, "cased", 8)
    assert cut.lengths.max() == 8
    assert (cut.ids[np.arange(20), cut.lengths - 1] == store.special["sep"]).all()


def test_negatives_are_of_other_groups(folder: Path) -> None:
    store = Store.load(folder)
    model = Mini(Shape(store.special["vocabulary"], 384, 1, 12, 32))
    near = nearest(Learner(model, None), store, "cpu", most=20)
    pairs = store.tasks["pairs.titles"]
    assert set(near) == {"titles"}  # of the other kind there are too few
    known, beside = near["titles"]
    assert sorted(known) == list(range(300))
    for own, others in zip(known, beside, strict=True):
        assert len(set(others)) == 20
        assert pairs[own, 2] not in pairs[others, 2]


def test_words_are_the_means_of_their_pieces() -> None:
    states = torch.arange(12.0).reshape(1, 6, 2)
    words = torch.tensor([[-1, 0, 0, 1, -1, -1]])
    assert by_word(states, words, 3).tolist() == [[3.0, 4.0], [6.0, 7.0], [0.0, 0.0]]


def test_words_have_the_shapes_they_are_written_in(folder: Path) -> None:
    words = ["...", "1990", "boat", "Boat", "A", "NATO", "iPhone"]
    assert [KINDS[kind_of(word)] for word in words] == list(KINDS)
    store = Store.load(folder)
    laid = Layout(store, "teacher_").lay([store.texts[number] for number in range(9)], "teacher", 64)
    assert laid.shapes is not None
    written = [WORDS[word] for number in range(9) for word in store.texts[number]]
    for word, shape, before in zip(laid.words.flat, laid.shapes.flat, [-1, *laid.words.flat[:-1]], strict=True):
        kind = None if word < 0 else KINDS.index("Capitalised" if written[word].startswith("L") else "lower")
        assert shape == (0 if kind is None else 1 + 2 * kind + (word == before))


def test_only_names_make_place_for_others(folder: Path) -> None:
    store, random = Store.load(folder), np.random.default_rng(0)
    source, row = Named(store, NAMED, 512), np.array([0, *(number for number, word in enumerate(WORDS) if "L" in word)])
    store.groups["names"][:] = 7
    made = [source.with_others(np.append(row, 1), random).tolist() for _ in range(20)]
    assert {tuple(one) for one in made} == {(*row, 1), (0, *store.texts[7], 1)}
    assert all(np.array_equal(source.with_others(row[:1], random), row[:1]) for _ in range(5))
    batch = source.batch(random)
    assert batch["student.words"].max() == batch["teacher.words"].max() == batch["count"] - 1


def test_taggers_are_averaged(folder: Path) -> None:
    store, shape = Store.load(folder), Shape(60, 384, 1, 12, 32)
    taggers, model = [Tagger(Trunk(shape)) for _ in range(2)], Mini(shape)
    batch = Named(store, NAMED, 256).batch(np.random.default_rng(0))
    given = {key: value if key == "count" else torch.from_numpy(value) for key, value in batch.items()}

    def loss(*of: Tagger) -> float:
        torch.manual_seed(0)  # for dropout
        return float(named(Learner(model, None, of), given))

    with torch.no_grad():
        model.entities.out.bias[1] += 1
        taggers[1].load_state_dict(taggers[0].state_dict())  # whose states are learned, too
        taggers[1].entities.out.bias[1] += 3
        assert abs(loss(taggers[0]) - loss(taggers[1])) > 0.01
        assert loss(*taggers) == pytest.approx((loss(taggers[0]) + loss(taggers[1])) / 2, rel=1e-3)


def test_the_states_of_the_first_tagger_are_learned(folder: Path) -> None:
    store, shape = Store.load(folder), Shape(60, 384, 1, 12, 32)
    taggers, model = [Tagger(Trunk(shape)) for _ in range(2)], Mini(shape)
    for tagger in taggers:
        torch.nn.init.zeros_(tagger.entities.out.weight)  # so that both say the same, whatever their states are
        torch.nn.init.zeros_(tagger.entities.out.bias)
    batch = Named(store, NAMED, 256).batch(np.random.default_rng(0))
    given = {key: value if key == "count" else torch.from_numpy(value) for key, value in batch.items()}
    torch.manual_seed(0)
    loss = named(Learner(model, None, taggers), given)
    loss.backward()
    assert model.words.weight.grad is not None
    assert model.words.weight.grad.abs().max() > 0
    torch.manual_seed(0)
    assert abs(float(named(Learner(model, None, taggers[::-1]), given).detach() - loss.detach())) > 0.001


def test_a_model_that_says_nothing_finds_no_names(folder: Path) -> None:
    store, model = Store.load(folder), Mini(Shape(60, 384, 1, 12, 32))
    with torch.no_grad():
        model.entities.out.bias[TAGS.index("O")] += 1e3
        assert names_found(model, store, "cpu") == 0
    assert spans(np.array([0, 1, 1, 2, 0, 3])) == [(1, 3, 1), (3, 4, 2), (5, 6, 3)]
