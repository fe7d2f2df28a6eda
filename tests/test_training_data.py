"""The recipe's readers, splits, measures and baselines, over small files written in the forms of the real ones."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from sklearn.metrics import average_precision_score, roc_auc_score

from training import baselines, data, evaluate, metrics, quality
from training.data.markup import markdown_blocks, rst_blocks
from training.data.prose import cut, pieces, sentences
from training.prepare import Gathered

NOUNS = ["archive", "branch", "cluster", "device", "export", "format", "gateway", "header", "index", "journal"]
NOUNS += ["kernel", "ledger", "module", "network"]
PAGE = """# {title}

> [!NOTE]
> The Microsoft Foundation Classes (MFC) library continues to be supported.

The {noun} {number} keeps its own copy of what [was written](other.md#there) and *never* forgets it, as `{noun}s` do.

## Remarks on {noun} {number}

```cpp
int code = 1;
```

|Name|What|
|----|----|
|one|two|

It opens the {noun} once and reads all {number} of its parts, which then stay in memory until it is closed again.

- an item of a list, long enough to be kept as a paragraph of its own

## See also

[Another page](another.md)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("permissive")
    write_pages(root)
    write_pairs(root)
    write_sentiment(root)
    write_toxicity(root)
    write_questions(root)
    write_entities(root)
    return root


def write(path: Path, text: str) -> None:
    """Packed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_pages(root: Path) -> None:
    titles = [f"Opening the {noun} number {number}" for noun in NOUNS for number in range(10)]
    markdown = [
        {"path": f"{title}.md", "title": title, "text": PAGE.format(title=title, noun=title.split()[2], number=number)}
        for number, title in enumerate(titles)
    ]
    for source in ("ms-cpp-docs", "ms-powershell-docs", "eips", "18f-site", "18f-handbook"):
        write_lines(root / "text" / f"{source}.jsonl.gz", markdown if source == "ms-cpp-docs" else markdown[:3])
    peps = [
        {
            "path": f"pep-{n}.rst",
            "title": "",
            "text": f"PEP: {n}\nTitle: About {NOUNS[n]}s\nStatus: Final\n\n{RST}{NOUNS[n]} end.\n",
        }
        for n in range(10)
    ]
    write_lines(root / "text" / "peps.jsonl.gz", peps)
    book = '# Title: T\n\n-------\n\n##  ONE\n\n\tIt was a dark and _stormy_ night, and nobody slept.\r\n\r\n"Short."\n'
    write_lines(root / "text" / "classic-books-subset.jsonl.gz", [{"path": "A/T.md", "title": "", "text": book}])


RST = """Abstract
========

This PEP says with :pep:`8` that ``names`` matter, see `there <https://example.org>`_ [1]_.  An example is::

    code = "is left out"

.. note::

    Directives are left out with what belongs to them.

- an item
  of two lines
- another item
"""


def write_pairs(root: Path) -> None:
    pages = [
        {
            "path": f"{platform}/{noun}{number}.md",
            "command": f"{noun}{number}",
            "description": f"Handles every {noun} with the number {number}.",
            "examples": [
                {"task": f"[l]ist the {noun}s of {number}", "command": f"{noun}{number} {{{{[-l|--list]}}}}"},
                {"task": f"Remove the {noun} {number}", "command": f"{noun}{number} rm {{{{path/to/file}}}}"},
                {"task": "Display help", "command": f"{noun}{number} --help"},
            ],
        }
        for noun in NOUNS
        for number in range(20)
        for platform in ("common", "linux")
    ]
    write_lines(root / "retrieval" / "tldr" / "tldr_en.jsonl.gz", pages)
    medical = [
        {
            "id": f"{number}-{qtype}",
            "focus": f"{noun} syndrome {number}",
            "qtype": qtype,
            "question": f"What is (are) {noun} syndrome {number} ?"
            if qtype == "information"
            else f"Is {noun} {number}?",
            "answer": f"What is {noun} syndrome {number}? {noun} syndrome {number} is a disorder of the {noun}. "
            f"It is inherited in an autosomal dominant pattern, says {qtype}. Nothing more is known about it today.",
        }
        for noun in NOUNS
        for number in range(6)
        for qtype in ("information", "inheritance")
    ]
    write_lines(root / "retrieval" / "medquad" / "medquad.jsonl.gz", medical)


def write_sentiment(root: Path) -> None:
    files = {
        "amazonReviewSnippets": [
            ("1_1", -2.0, "it broke at once"),
            ("1_2", 0.1, "it is a phone"),
            ("1_3", 0.6, "fine"),
        ],
        "tweets": [("1", 2.5, "RT @someone: so &amp; so @other!")],
        "nytEditorialSnippets": [("1", -1.5, "A sad day."), ("2", 3.0, "A great day.")],
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, rows in files.items():
            content = "".join(f"{id}\t{rating}\t{text}\n" for id, rating, text in rows).encode()
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sentiment = root / "sentiment"
    (sentiment / "vader").mkdir(parents=True)
    (sentiment / "vader" / "hutto_ICWSM_2014.tar.gz").write_bytes(packed.getvalue())
    said = [f"The {noun} was {('bad', 'good')[n % 2]} {n}.  \t{n % 2}" for noun in NOUNS for n in range(8)]
    for name in ("amazon_cells", "yelp", "imdb"):
        write(sentiment / "uci-sentences" / f"{name}_labelled.txt", "\n".join(said))
    for part in ("train", "dev", "test"):
        for kind in ("orig", "new"):
            review = f'Sentiment\tText\nNegative\t"A ""bad"" film of the {part} {kind}"\n'
            write(sentiment / "acmi-imdb" / f"{kind}_{part}.tsv", review)
        comments = f"Thanks, [NAME]\t2\ta\nWhat?\t4\tb\nA day of the {part}\t3\tc\nOuch and thanks\t1,2\td\n"
        write(sentiment / "goemotions" / f"{part}.tsv", comments)
    write(sentiment / "goemotions" / "labels.txt", "joy\nanger\ngratitude\nneutral\nsurprise\n")
    write(sentiment / "senti4sd" / "train3098.csv", 't1;negative;"a; b"\n')
    write(sentiment / "senti4sd" / "test1326.csv", "t4;positive;great\n")


def write_toxicity(root: Path) -> None:
    tweets = [f"{n},3,0,0,3,{n % 3},@ann the {noun} {n}\n" for noun in NOUNS for n in range(9)]
    header = ",count,hate_speech,offensive_language,neither,class,tweet\n"
    write(root / "safety" / "davidson-hate" / "labeled_data.csv.gz", header + "".join(tweets))
    said = [f'"a {noun}, {n}",{("Toxic", "Not Toxic")[n % 2]}\n' for noun in NOUNS for n in range(4)]
    write(root / "safety" / "surge-toxicity" / "toxicity_en.csv", "text,is_toxic\n" + "".join(said))
    for part in ("train", "trial", "test"):
        spans = f'spans,text\n"[0, 1]",oh {part}\n[],nothing marked in {part}\n'
        write(root / "safety" / "toxic-spans" / f"tsd_{part}.csv", spans)


def write_questions(root: Path) -> None:
    """Intents and inference."""
    drawn = random.Random(1)
    said = [(f"please {drawn.choice(NOUNS)} the {noun} {n}", f"{noun}_it") for noun in NOUNS for n in range(10)]
    for part in ("train", "test"):
        rows = "".join(f"{text} in {part},{label}\n" for text, label in said)
        write(root / "intent" / "banking77" / f"{part}.csv", "text,category\n" + rows)
    parts = {part: [[f"{text} {part}", label] for text, label in said] for part in ("train", "val", "test")}
    write(root / "intent" / "clinc150" / "data_full.json.gz", json.dumps(parts))
    for part in ("train", "dev", "test"):
        rows = f'a\tb\tc\nA "man" in {part}.\tA man.\tentailment\nx\ty\t-\n'
        write(root / "nli" / "acmi-snli" / f"all_combined_{part}.tsv", rows)
    header, fact = "Premise\tHypothesis\tLabel\n", "The {} of {} was opened in {} and never closed.\tIt was.\tneutral\n"
    facts = "".join(fact.format(noun, noun.title() + "town", 1900 + n) for n, noun in enumerate(NOUNS))
    write(root / "nli" / "conjnli" / "adversarial_train_15k.tsv.gz", "\ufeff" + header + facts)
    write(root / "nli" / "conjnli" / "conj_dev.tsv", header + "He left in 1949.\tHe left.\tentailment\n")


def write_entities(root: Path) -> None:
    ner, documents = root / "ner", []
    for number in range(40):
        tokens = f"Anna{number} B{number} was born in Town{number} in May .".split()
        tags = ["I-PER", "I-PER", "O", "O", "O", "I-LOC", "O", "O", "O"]
        rows = [f"{token} {tag}" for token, tag in zip(tokens, tags, strict=True)]
        documents.append("\n".join([*rows, "", "Nobody O", "knows O", ". O", "", "-DOCSTART- O", ""]))
    write(ner / "wikigold" / "wikigold.conll", "\n".join(documents))
    for domain in ("ai", "literature", "music", "politics", "science"):
        for part in ("train", "dev", "test"):
            named = "Ada\tB-scientist\nstudied\tO\nlogic\tB-field\nJazz\tB-musicgenre\nin\tO\nParis\tB-location\n"
            write(ner / "crossner" / f"{domain}_{part}.txt", f"{domain}{part}\tO\n{named}\nx\tB-product\n\n")
    for part in ("train", "dev", "test"):
        write(ner / "btc" / f"btc.{part}", f"@\tO\nann\tB-PER\nlikes\tO\nBob\tB-PER\n{part}\tO\n")
    for name in ("train.conll", "dev.conll", "test.annotated"):
        write(ner / "wnut17" / name, "Acme\tB-corporation\nsells\tO\nPhone\tB-product\nX\tI-product\n\n")
    for name in ("train_FIN5.txt", "test_FIN3.txt"):
        write(ner / "sec-filings" / name, "-DOCSTART- -X- O O\n\nThe DT - O\nLender NN - I-PER\nAcme NN - I-ORG\n")
    made = []
    for number in range(30):
        text = f"Call Jo-Ann Ray{number}, now"
        span = {"entity_type": "PERSON", "start_position": 5, "end_position": text.index(",")}
        made.append({"full_text": text, "spans": [span], "template_id": number})
    made.append({**made[0], "spans": [{"entity_type": "STREET_ADDRESS", "start_position": 0, "end_position": 4}]})
    write(ner / "presidio-pii" / "synth_dataset_v2.json.gz", json.dumps(made))


# What is held out


@given(some.text())
def test_a_key_is_held_out_whatever_its_case_and_punctuation(key: str) -> None:
    assert data.held_out(key, 1.0)
    assert not data.held_out(key, 0.0)
    if key.isascii() and any(char.isalnum() for char in key):
        assert data.held_out(key) == data.held_out(f"  {key.upper()} ") == data.held_out(key.lower())


def test_about_a_tenth_is_held_out_and_stays_so() -> None:
    held = [number for number in range(10_000) if data.held_out(f"page {number}")]
    assert 900 < len(held) < 1100
    assert held[:5] == [19, 20, 23, 61, 62]  # a model's figures hold only as long as these do


def test_nothing_held_out_is_trained_on(folder: Path) -> None:
    held = {pair.query for pair in data.title_pairs(folder, "held")}
    assert held
    assert not held & {pair.query for pair in data.title_pairs(folder, "train")}
    trained = [*data.section_pairs(folder)]
    assert not {pair.group for pair in trained} & held
    numbers = {title.split()[-1] for title in held}
    assert numbers
    everything = " ".join(data.passages(folder))
    for pair in data.title_pairs(folder, "held"):
        assert pair.text not in everything
    for reader in (data.tldr_pairs, data.medquad_pairs):
        held_groups = {pair.group for pair in reader(folder, "held")}
        assert held_groups
        assert not held_groups & {pair.group for pair in reader(folder, "train")}
    people = {one.tokens[0] for one in data.entities(folder, "held") if one.source == "wikigold"}
    assert len(people) > 2
    assert not (people - {"Nobody"}) & {one.tokens[0] for one in data.entities(folder, "train")}


# Pages


def test_markdown_gives_paragraphs_under_their_headings() -> None:
    blocks = list(markdown_blocks(PAGE.format(title="T", noun="n", number=5)))
    assert [block.heading for block in blocks] == ["T", "T", "Remarks on n 5", "Remarks on n 5", "See also"]
    assert blocks[1].text == "The n 5 keeps its own copy of what was written and never forgets it, as ns do."
    assert blocks[3].text == "an item of a list, long enough to be kept as a paragraph of its own"
    assert not any(word in block.text for block in blocks for word in ("code", "Name", "|", "`"))


def test_restructured_text_gives_paragraphs_without_code_and_directives() -> None:
    assert [tuple(block) for block in rst_blocks(RST)] == [
        ("Abstract", "This PEP says with PEP 8 that names matter, see there. An example is"),
        ("Abstract", "an item of two lines"),
        ("Abstract", "another item"),
    ]


def test_a_page_is_found_by_its_title_and_does_not_begin_with_it(folder: Path) -> None:
    pairs = list(data.title_pairs(folder, "train"))
    assert len(pairs) > 100
    assert any(pair.source == "peps" and pair.query == "About archives" for pair in pairs)
    assert all(not pair.text.startswith(pair.query) for pair in pairs)
    assert all("continues to be supported" not in pair.text for pair in pairs)
    assert all(60 <= len(pair.text) <= 600 for pair in pairs)


def test_headings_come_with_their_own_text(folder: Path) -> None:
    for pair in data.section_pairs(folder):
        noun, number = pair.query.split()[-2:]
        assert pair.query.endswith(f"Remarks on {noun} {number}") or pair.source == "peps"
        assert pair.text.startswith(f"It opens the {noun} once and reads all {number}") or pair.source == "peps"


def test_passages_come_once_and_in_bounds(folder: Path) -> None:
    found = list(data.passages(folder))
    assert len(found) == len(set(found))
    assert all(20 <= len(passage) <= 1200 for passage in found)
    assert "It was a dark and stormy night, and nobody slept." in found


@given(
    some.lists(some.sampled_from(["He left.", "Dr. No came!", "Why?", "It was 5 p.m. in the U.S. Army."]), min_size=1)
)
def test_sentences_put_together_are_the_text(parts: list[str]) -> None:
    text = " ".join(parts)
    assert list(sentences(text)) == parts
    assert " ".join(pieces(text, 60)) == text
    assert all(len(piece) <= 60 for piece in pieces(text, 60))
    assert text.startswith(cut(text, 25))
    assert len(cut(text, 25)) <= max(25, len(parts[0]))


# Pairs


def test_commands_lose_their_placeholders(folder: Path) -> None:
    train = list(data.tldr_pairs(folder, "train"))
    assert {pair.source for pair in train} == {"tldr", "tldr-tasks"}
    assert not any(mark in pair.query + pair.text for pair in train for mark in ("{{", "}}", "[-l", "Display help"))
    texts = {pair.query: pair.text for pair in train}
    shown = [noun for noun in NOUNS if f"Remove the {noun} 0" in texts]
    assert shown
    for noun in shown:
        assert texts[f"Remove the {noun} 0"] == f"{noun}0 rm path/to/file (Handles every {noun} with the number 0)"
        assert (
            texts[f"Handles every {noun} with the number 0"] == f"{noun}0: list the {noun}s of 0. Remove the {noun} 0."
        )
    assert all(pair.query.rstrip(".") not in pair.text for pair in train)


def test_answers_do_not_repeat_the_question(folder: Path) -> None:
    pairs = list(data.medquad_pairs(folder, "train"))
    assert len(pairs) > 100
    assert all(not pair.text.startswith("What is") and " ?" not in pair.query for pair in pairs)


# Labels


def test_ratings_become_labels_and_what_lies_between_is_left_out(folder: Path) -> None:
    rows = [*data.sentiment(folder, "train"), *data.sentiment(folder, "held")]
    found = {row.text: row.label for row in rows if row.source.startswith("vader")}
    assert found == {
        "it broke at once": 0,
        "it is a phone": 1,
        "so & so @user!": 2,
        "A sad day.": 0,
        "A great day.": 2,
    }
    felt = {row.text: row.label for row in rows if row.source == "goemotions"}
    assert felt == {"Thanks, Alex": 2, "A day of the train": 1, "A day of the dev": 1, "A day of the test": 1}
    assert {row.text: row.label for row in rows if row.source == "senti4sd"} == {"a; b": 0, "great": 2}
    assert 'A "bad" film of the test orig' in {row.text for row in rows if row.split == "held"}


def test_four_tenths_of_the_short_reviews_are_held_out(folder: Path) -> None:
    held = [row for row in data.sentiment(folder, "held") if row.source.startswith("uci")]
    train = [row for row in data.sentiment(folder, "train") if row.source.startswith("uci")]
    assert 0.3 < len(held) / (len(held) + len(train)) < 0.5
    assert not {row.text for row in held if row.source == "uci-yelp"} & {
        row.text for row in train if row.source == "uci-yelp"
    }


def test_inference_and_intents_keep_their_official_parts(folder: Path) -> None:
    assert [(row.premise, row.label) for row in data.nli(folder, "held")] == [
        ('A "man" in test.', 0),
        ("He left in 1949.", 0),
    ]
    rows = data.intents(folder, "banking77")
    assert {row.text.rsplit(" ", 1)[1] for row in rows if row.split == "held"} == {"test"}
    assert {row.label for row in rows} == {f"{noun} it" for noun in NOUNS}


# Names


def test_types_of_all_sets_agree(folder: Path) -> None:
    by_source: dict[str, list[data.Tagged]] = {}
    for one in (*data.entities(folder, "train"), *data.entities(folder, "held")):
        by_source.setdefault(one.source, []).append(one)
    assert by_source["wikigold"][0].tags == ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "O", "O", "O"]
    assert by_source["crossner"][0].tags == ["O", "B-PER", "O", "O", "O", "O", "B-LOC"]
    assert by_source["crossner"][1].tags == ["O"]  # "x" has no capital
    assert by_source["btc"][0].tags == ["O", "O", "O", "B-PER", "O"]
    assert by_source["wnut17"][0].tags == ["B-ORG", "O", "B-MISC", "I-MISC"]
    assert by_source["sec-filings"][0].tags == ["O", "O", "B-ORG"]
    assert by_source["presidio"][0].tags[:3] == ["O", "B-PER", "I-PER"]
    assert len(by_source["presidio"]) == 30
    assert {source for source, found in by_source.items() if found[0].partial} == {
        "btc",
        "wnut17",
        "sec-filings",
        "presidio",
    }


WORDS = some.sampled_from([*NOUNS, "U.S.", ".", ",", "(", ")", '"', "'s", "n't", "``", "''", "$", "-LRB-", "5"])


@given(some.lists(WORDS, min_size=1, max_size=30))
def test_tokens_lie_in_the_running_text_where_their_spans_say(tokens: list[str]) -> None:
    text, spans = data.detokenize(tokens)
    assert len(spans) == len(tokens)
    written = {"``": '"', "''": '"', "-LRB-": "("}
    assert [text[start:end] for start, end in spans] == [written.get(token, token) for token in tokens]
    assert all(before[1] <= behind[0] <= before[1] + 1 for before, behind in itertools.pairwise(spans))


def test_running_text_reads_as_people_write() -> None:
    tokens = [
        "He",
        "did",
        "n't",
        "say",
        '"',
        "Yes",
        ",",
        "$",
        "5",
        '"',
        "(",
        "or",
        "so",
        ")",
        "in",
        "Ann",
        "'s",
        "shop",
        ".",
    ]
    assert data.detokenize(tokens)[0] == "He didn't say \"Yes, $5\" (or so) in Ann's shop."
    tagged = data.Tagged(["Ann", "'s", "New", "York"], ["B-PER", "O", "B-LOC", "I-LOC"], False, "here", "train")
    assert data.spans_of(tagged) == ("Ann's New York", [(0, 3, "PER"), (6, 14, "LOC")])


def test_no_name_that_is_held_out_is_learned_from(folder: Path) -> None:
    found = Gathered()
    found.names(folder)
    found.lists(["Bowling", "green", "Ohio"], 5)
    held = found.tasks["entities.held"]
    assert len(held)
    assert not set(held) & {row for rows in found.groups.values() for row in rows}
    assert not set(held) & set(found.tasks["entities"][:, 0])
    words = list(found.texts.words)
    names = {tuple(words[word] for word in found.texts.rows[row]) for row in found.groups["names"]}
    marked = [data.spans_of(one) for one in data.entities(folder, "train")]
    known = {tuple(found.texts.split(text[start:stop])[0]) for text, spans in marked for start, stop, _ in spans}
    made_up = {name for name in names if set(name) <= {"Bowling", "Ohio"}}
    assert names == known | made_up


# Questions


def test_answers_stand_where_they_are_said_to(folder: Path) -> None:
    found = list(data.answers(folder, "train"))
    assert {one.source for one in found} == {"names", "facts", "definitions", "medquad", "tldr"}
    for one in found:
        assert one.context[one.start : one.start + len(one.answer)] == one.answer
        assert one.question.endswith("?")
    asked = {one.question: one.answer for one in found}
    assert asked["When was the kernel of Kerneltown opened?"] == "1910"
    assert {asked[f"Is kernel {number}?"] for number in range(6) if f"Is kernel {number}?" in asked} == {
        "autosomal dominant"
    }
    commands = [one for one in found if one.source == "tldr"]
    assert all(one.answer.split()[0] == one.context.split(":")[0] for one in commands)


# Measures


@given(some.lists(some.tuples(some.integers(0, 6), some.booleans()), min_size=2, max_size=60))
def test_area_and_precision_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], float)
    right = np.array([label for _, label in rows])
    if right.all() or not right.any():
        return
    assert metrics.area(scores, right) == pytest.approx(roc_auc_score(right, scores))
    apart = scores + np.linspace(0, 0.5, len(scores))  # average precision depends on the order of equal scores
    assert metrics.average_precision(apart, right) == pytest.approx(average_precision_score(right, apart))


def test_ranks_share_what_scores_the_same() -> None:
    scores = np.array([[3.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    assert metrics.ranks(scores, np.array([0, 2])).tolist() == [1.5, 2.0]
    assert metrics.mean_reciprocal_rank(np.array([1.0, 2.0, 11.0])) == pytest.approx(0.5)
    assert metrics.ranks(np.zeros((1, 101)), np.array([7])).tolist() == [
        51.0
    ]  # a model that says nothing finds nothing


def test_spans_count_when_both_ends_and_the_type_are_right() -> None:
    right = [[(0, 3, "PER"), (6, 14, "LOC")], []]
    assert quality.names([[(0, 3, "PER"), (6, 14, "ORG")], []], right) == {"f1": 0.5, "f1 untyped": 1.0}
    assert metrics.f1([[], []], [[], []]) == 0.0


def test_bm25_is_the_sum_over_words() -> None:
    texts = ["the cat sat on the mat", "a dog", "the dog ate the cat food"]
    scores = baselines.bm25(["the cat", "bird"], texts)
    lengths = [len(text.split()) for text in texts]
    for number, text in enumerate(texts):
        wanted = 0.0
        for word in ("the", "cat"):
            holding = sum(word in other.split() for other in texts)
            idf = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            times = text.split().count(word)
            norm = 1.2 * (0.25 + 0.75 * lengths[number] / np.mean(lengths))
            wanted += idf * times * 2.2 / (times + norm)
        assert scores[0, number] == pytest.approx(wanted)
    assert not scores[1].any()


def test_names_are_looked_up(folder: Path) -> None:
    looked_up = baselines.Names(one for one in data.entities(folder, "train") if one.source == "crossner")
    assert looked_up.find("Ada met Paris and Bob Ray in May") == [
        (0, 3, "PER"),
        (8, 13, "LOC"),
        (18, 25, "PER"),
        (29, 32, "PER"),
    ]


def test_a_ranking_is_measured_before_and_after() -> None:
    pairs = [data.Pair(f"q{n}", f"t{n}", str(n), "here", "held") for n in range(30)]
    scores = np.random.default_rng(1).normal(size=(30, 30))
    before, after = quality.reranked(pairs, scores, lambda query, texts: [text[1:] == query[1:] for text in texts], 30)
    kept = np.mean([number in np.argsort(-row)[:20] for number, row in enumerate(scores)])
    assert after == pytest.approx(kept)
    assert before == pytest.approx(quality.retrieval(scores)["mrr@10"])
    everything = quality.similarity(np.eye(30), pairs)
    assert everything == 1.0


# The whole


def test_a_model_beside_itself_has_all_of_its_quality(
    folder: Path, minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main(
        [str(folder), str(minilm), "--quick", "--only", "embed", "intents", "toxicity", f"--write={tmp_path / 'a'}"]
    )
    said = capsys.readouterr().out
    result = json.loads(said.splitlines()[-1])
    assert result == json.loads((tmp_path / "a").read_text())
    *measured, left_out = result["rows"]
    assert left_out["measure"] == "not shipped"
    assert {row["on"] for row in measured} == {"tldr", "tldr-tasks", "medquad", "titles", "banking77", "clinc150"}
    for row in measured:
        assert row["model"] == pytest.approx(row["teacher"])
        assert 0 < row["model"] <= 1
        assert all(0 <= value <= 1 for value in row["trivial"].values())
    assert "MISSED" not in "".join(line for line in said.splitlines() if line.startswith("similarity"))


def test_every_head_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(folder), "--quick"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert {row["task"] for row in rows} == {"retrieval", "similarity", "intent", *evaluate.HEADS} - {
        "embed",
        "intents",
    }
    assert all(row["model"] is None or 0 <= row["model"] <= 1 for row in rows)
