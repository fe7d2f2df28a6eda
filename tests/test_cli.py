"""The commands as a person or a pipe uses them: real processes, real (tiny) models."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from onepass import Encoder
from onepass.cli import cli, main

TEXTS = ["a river runs past the old mill", "cats sleep", "who wrote the letter that never arrived?", "salt, yeast"]
TASKS = {
    "embed",
    "embed-chunks",
    "rerank",
    "classify",
    "moderate",
    "tag",
    "fill",
    "answer",
    "log-probs",
    "multivector",
    "run",
    "sparse",
}
ONEPASS = str(Path(sys.executable).with_name("onepass"))


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No onepass.toml and no ONEPASS_ variable of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ONEPASS_")]:
        monkeypatch.delenv(name)


def onepass(*arguments: object, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ONEPASS, *map(str, arguments)], input=stdin, capture_output=True, timeout=120, env=os.environ | environ
    )


def records(result: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr.decode()
    return [json.loads(line) for line in result.stdout.splitlines()]


def failure(result: subprocess.CompletedProcess[bytes], code: int = 1) -> str:
    """The one sentence on stderr."""
    assert result.returncode == code, result.stderr.decode()
    assert result.stdout == b""
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("onepass: ")
    return line.removeprefix("onepass: ")


@pytest.fixture(scope="session")
def vectors(tiny_embedder: Path) -> np.ndarray[Any, Any]:
    with Encoder(tiny_embedder) as encoder:
        return np.asarray(encoder.embed(TEXTS))


def as_csv(texts: list[str]) -> bytes:
    handle = io.StringIO()
    csv.writer(handle).writerows([["id", "text"], *([str(n), text] for n, text in enumerate(texts))])
    return handle.getvalue().encode()


def as_jsonl(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"id": n, "text": text}).encode() + b"\n" for n, text in enumerate(texts))


def as_parquet(texts: list[str]) -> bytes:
    handle = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": list(range(len(texts))), "text": texts}), handle)
    return handle.getvalue()


FILES = {
    "texts.txt": "\n".join(TEXTS).encode(),
    "dos.txt": b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode(),
    "texts.csv": as_csv(TEXTS),
    "texts.jsonl": as_jsonl(TEXTS),
    "strings.ndjson": b"\n".join(json.dumps(text).encode() for text in TEXTS),
    "texts.parquet": as_parquet(TEXTS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_vectors_of_the_library(
    name: str, tiny_embedder: Path, vectors: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    found = records(onepass("embed", "-m", tiny_embedder, "--input", name))
    assert [record["index"] for record in found] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.array([record["embedding"] for record in found], np.float32), vectors)


def test_arguments_and_standard_input_give_the_same(tiny_embedder: Path, vectors: np.ndarray[Any, Any]) -> None:
    by_arguments = onepass("embed", "-m", tiny_embedder, *TEXTS)
    found = np.array([record["embedding"] for record in records(by_arguments)], np.float32)
    np.testing.assert_array_equal(found, vectors)
    assert by_arguments.stderr == b""
    by_pipe = onepass("embed", "-m", tiny_embedder, stdin=FILES["texts.txt"])
    by_dash = onepass("embed", "-m", tiny_embedder, "-i", "-", "--input-format", "jsonl", stdin=FILES["texts.jsonl"])
    assert by_arguments.stdout == by_pipe.stdout == by_dash.stdout


def test_npy_to_a_file_and_to_a_pipe(tiny_embedder: Path, vectors: np.ndarray[Any, Any], tmp_path: Path) -> None:
    to_file = onepass("embed", "-m", tiny_embedder, "--format", "npy", "--output", "out.npy", *TEXTS)
    assert (to_file.returncode, to_file.stdout, to_file.stderr) == (0, b"", b"")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), vectors)
    to_pipe = onepass("embed", "-m", tiny_embedder, "--format", "npy", *TEXTS)
    np.testing.assert_array_equal(np.load(io.BytesIO(to_pipe.stdout)), vectors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy"]


def test_a_file_of_several_chunks_keeps_its_order(tiny_embedder: Path, vectors: np.ndarray[Any, Any]) -> None:
    many = 1500
    lines = "\n".join(TEXTS[n % 4] for n in range(many)).encode()
    result = onepass("embed", "-m", tiny_embedder, "--format", "npy", stdin=lines)
    np.testing.assert_array_equal(np.load(io.BytesIO(result.stdout)), np.tile(vectors, (many // 4, 1)))


def test_results_are_written_while_the_input_still_grows(tiny_embedder: Path) -> None:
    """Bounded memory: the first chunks are answered although the input has not ended."""
    with subprocess.Popen(
        [ONEPASS, "embed", "-m", tiny_embedder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"cats sleep\n" * 4096)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdin.close()
        assert sum(1 for _ in process.stdout) == 4095


def test_options_of_embed_reach_the_task(tiny_embedder: Path) -> None:
    with Encoder(tiny_embedder) as encoder:
        cut = encoder.embed(TEXTS[:1], dimensions=8)
        raw = encoder.embed(TEXTS[:1], normalize=False)
        signs = encoder.embed(TEXTS[:1], precision="binary")
    for option, expected in [
        ("--dimensions=8", cut),
        ("--no-normalize", raw),
        ("--precision=binary", signs),
    ]:
        (record,) = records(onepass("embed", "-m", tiny_embedder, TEXTS[0], option))
        np.testing.assert_array_equal(np.array(record["embedding"], expected.dtype), expected[0])


def test_rerank_orders_documents_of_any_source(tiny_reranker: Path, tmp_path: Path) -> None:
    with Encoder(tiny_reranker) as encoder:
        ranking = encoder.rerank("where does the river run?", TEXTS)
    expected = [{"index": one.index, "score": one.score, "text": TEXTS[one.index]} for one in ranking]
    found = records(onepass("rerank", "-m", tiny_reranker, "where does the river run?", *TEXTS))
    assert found == expected
    piped = onepass("rerank", "-m", tiny_reranker, "where does the river run?", "--top-n", 2, stdin=FILES["texts.txt"])
    assert records(piped) == expected[:2]


def test_rerank_reads_long_documents_in_windows(tiny_reranker: Path, tiny_asked: Path) -> None:
    documents = [" ".join(TEXTS * 6), *TEXTS]
    options = ["--long=windows", "--window=30", "--overlap=3", "--document-tokens=50", "--raw-scores"]
    with Encoder(tiny_reranker) as encoder:
        ranking = encoder.rerank(
            TEXTS[0], documents, long="windows", window=30, overlap=3, document_tokens=50, raw_scores=True
        )
    expected = [{"index": one.index, "score": one.score, "text": documents[one.index]} for one in ranking]
    assert records(onepass("rerank", "-m", tiny_reranker, TEXTS[0], *documents, *options)) == expected
    with Encoder(tiny_asked) as encoder:
        (best, *_) = encoder.rerank(TEXTS[0], TEXTS, prompt="Find a letter.")
    (found,) = records(onepass("rerank", "-m", tiny_asked, TEXTS[0], *TEXTS, "--prompt", "Find a letter.", "--top-n=1"))
    assert found == {"index": best.index, "score": best.score, "text": TEXTS[best.index]}


def test_moderate_by_the_settings_file_or_by_options(tiny_multilabel: Path, tmp_path: Path) -> None:
    table: Any = {"mood": ["joy", "surprise"], "harm": {"labels": ["anger", "fear"], "threshold": 0.1}}
    (tmp_path / "onepass.toml").write_text(
        "[moderation]\nmood = ['joy', 'surprise']\nharm = { labels = ['anger', 'fear'], threshold = 0.1 }\n"
    )
    with Encoder(tiny_multilabel, moderation=table) as encoder:
        by_file = [dataclasses.asdict(one) for one in encoder.moderate(TEXTS)]
        by_option = [dataclasses.asdict(one) for one in encoder.moderate(TEXTS, categories={"a": ["joy", "fear"]})]
    assert records(onepass("moderate", "-m", tiny_multilabel, *TEXTS)) == as_written("moderation", by_file)
    options = ["--category", "a=joy", "--category", "a=fear"]
    assert records(onepass("moderate", "-m", tiny_multilabel, *TEXTS, *options)) == as_written("moderation", by_option)


def test_classify_texts_and_pairs(tiny_classifier: Path, tmp_path: Path) -> None:
    with Encoder(tiny_classifier) as encoder:
        single: Any = encoder.classify(TEXTS[:2])
        pair: Any = encoder.classify([(TEXTS[0], TEXTS[1])])
    found = records(onepass("classify", "-m", tiny_classifier, *TEXTS[:2]))
    assert found == [
        {"index": n, "labels": [{"label": label, "score": score} for label, score in labels]}
        for n, labels in enumerate(single)
    ]
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"premise": TEXTS[0], "hypothesis": TEXTS[1]}))
    (paired,) = records(
        onepass(
            "classify", "-m", tiny_classifier, "-i", "pairs.jsonl", "--column", "premise", "--pair-column", "hypothesis"
        )
    )
    assert paired["labels"] == [{"label": label, "score": score} for label, score in pair[0]]
    assert paired["labels"] != found[0]["labels"]


def test_tag_fill_and_answer_write_what_the_methods_give(
    tiny_tagger: Path, tiny_filler: Path, tiny_answerer: Path
) -> None:
    with Encoder(tiny_tagger) as encoder:
        tagged = encoder.tag(TEXTS[:2], aggregation="first", ignore_labels=["PER", "B-LOC"])
    found = records(
        onepass(
            "tag", "-m", tiny_tagger, *TEXTS[:2], "--aggregation=first", "--ignore-label=PER", "--ignore-label=B-LOC"
        )
    )
    assert found == as_written("entities", tagged)
    with Encoder(tiny_filler) as encoder:
        filled = encoder.fill("the [MASK] sleep", top_k=2, candidates=["cats", "dogs", "train"])
    named = [f"--candidate={word}" for word in ("cats", "dogs", "train")]
    assert records(onepass("fill", "-m", tiny_filler, "the [MASK] sleep", "--top-k=2", *named)) == as_written(
        "masks", [filled]
    )
    with Encoder(tiny_answerer) as encoder:
        answers = encoder.answer("who sleeps?", TEXTS, top_k=2, no_answer=True, answer_tokens=3)
    options = ("--top-k=2", "--no-answer", "--answer-tokens=3")
    found = records(onepass("answer", "-m", tiny_answerer, "who sleeps?", *options, stdin=FILES["texts.txt"]))
    assert found == as_written("answers", answers)


def test_log_probs_and_labels_of_the_callers_own(tiny_decoder: Path, tiny_entailer: Path) -> None:
    with Encoder(tiny_decoder) as encoder:
        tokens = encoder.log_probs(TEXTS[:2])
    assert records(onepass("log-probs", "-m", tiny_decoder, *TEXTS[:2])) == as_written("tokens", tokens)
    with Encoder(tiny_entailer) as encoder:
        scores = encoder.classify(TEXTS[0], labels=["cats", "trains"], template="Of {}.", multi_label=True, long="max")
    options = ("--label=cats", "--label=trains", "--template=Of {}.", "--multi-label", "--long=max")
    (found,) = records(onepass("classify", "-m", tiny_entailer, TEXTS[0], *options))
    assert found["labels"] == as_written("labels", [[{"label": k, "score": v} for k, v in scores]])[0]["labels"]


def test_multivector(tiny_colbert: Path) -> None:
    with Encoder(tiny_colbert) as encoder:
        vectors = encoder.multivector(TEXTS[:2], input_type="query", dimensions=5)
    found = records(onepass("multivector", "-m", tiny_colbert, *TEXTS[:2], "--input-type=query", "--dimensions=5"))
    assert found == as_written("vectors", vectors)


def test_run_and_heads_by_name(tiny_heads: Path) -> None:
    with Encoder(tiny_heads) as encoder:
        entities = encoder.tag(TEXTS)
        moods = encoder.classify(TEXTS, head="mood")
    labels = [[{"label": label, "score": score} for label, score in mood] for mood in moods]
    answers = [{"mood": mood, "entities": found} for mood, found in zip(labels, entities, strict=True)]
    assert records(onepass("run", "-m", tiny_heads, *TEXTS, "--head=mood", "--head=entities")) == as_written(
        "heads", answers
    )
    assert records(onepass("classify", "-m", tiny_heads, *TEXTS, "--head=mood")) == as_written("labels", labels)


def test_sparse_writes_weights(tiny_splade: Path) -> None:
    with Encoder(tiny_splade) as encoder:
        weights = [[*vector] for vector in encoder.sparse(TEXTS[:2], input_type="query", top_k=2, threshold=0.5)]
    found = records(
        onepass("sparse", "-m", tiny_splade, *TEXTS[:2], "--input-type=query", "--top-k=2", "--threshold=0.5")
    )
    assert found == as_written("weights", weights)


def test_chunks_end_with_their_separator(tiny_embedder: Path) -> None:
    text = "; cats sleep; ; dogs; the train"
    with Encoder(tiny_embedder) as encoder:
        (vectors,) = encoder.embed_chunks([["; cats sleep; ; ", "dogs; ", "the train"]], dimensions=5)
    found = records(onepass("embed-chunks", "-m", tiny_embedder, text, "--separator=; ", "--dimensions=5"))
    spans = [{"start": start, "stop": stop} for start, stop in ((0, 16), (16, 22), (22, 31))]
    chunks = [span | {"embedding": vector} for span, vector in zip(spans, vectors, strict=True)]
    assert found == as_written("chunks", [chunks])


def as_written(name: str, answers: Sequence[Any]) -> list[dict[str, Any]]:
    found = [{"index": index, name: answer} for index, answer in enumerate(answers)]
    written = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
    records: list[dict[str, Any]] = orjson.loads(written)
    return records


def test_windows_are_reported_on_stderr(tiny_tagger: Path) -> None:
    result = onepass("tag", "-m", tiny_tagger, "the " * 200, "cats sleep", "--window=34", "--overlap=0")
    assert len(records(result)) == 2
    assert result.stderr == b"onepass: long texts were read in windows, 2 texts in 8 rows\n"


def test_info_says_what_was_chosen_and_why(tiny_embedder: Path) -> None:
    facts = json.loads(onepass("info", tiny_embedder, "--json", "--engine", "reference").stdout)
    assert facts["choices"]["engine"] == {"value": "reference", "reason": "asked"}
    assert len(facts["spec"]["layers"]) == 2
    shown = onepass("info", tiny_embedder, ONEPASS_ENGINE="reference").stdout.decode()
    assert "reference  (asked)" in shown
    assert "2 of width 32, norm after: layer norm of eps 1e-12" in shown


def test_pull_of_a_folder_is_that_folder(tiny_embedder: Path) -> None:
    assert onepass("pull", tiny_embedder).stdout.decode().strip() == str(tiny_embedder)


def test_cut_texts_are_reported_on_stderr_and_refused_on_request(tiny_embedder: Path) -> None:
    long = "river " * 200
    result = onepass("embed", "-m", tiny_embedder, long, "cats sleep")
    assert len(records(result)) == 2
    assert b"1 of 2" in result.stderr
    assert "64" in failure(onepass("embed", "-m", tiny_embedder, long, "--truncate", "none"))


def test_an_error_far_into_a_file_says_where_it_counts_from(tiny_embedder: Path) -> None:
    lines = b"cats sleep\n" * 1030 + b"river " * 200
    result = onepass("embed", "-m", tiny_embedder, "--truncate", "none", "-o", "out.jsonl", stdin=lines)
    sentence = failure(result)
    assert "input 6 " in sentence
    assert sentence.endswith("; counted from text 1024 of the whole input")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\n\ntwo\n", "line 2 of a.txt is empty; remove it, since there is nothing to encode"),
        ("a.txt", b"", "the input holds no texts; give at least one"),
        ("a.txt", b"one\n\xff\n", "line 2 of a.txt is not UTF-8: invalid start byte; convert the file first"),
        ("a.csv", b"id,words\n1,a\n", 'a.csv has no column "text"; it has: id, words; choose one with --column'),
        ("a.csv", b"id,text\n1,a\n2\n", "line 3 of a.csv has 1 cells, but the header has 2"),
        ("a.csv", b'id,text\n1,"a"b\n', "line 2 of a.csv is not valid csv: ',' expected after '\"'"),
        ("a.csv", b"", 'a.csv has no column "text"; it has: none; choose one with --column'),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "line 2 of a.jsonl holds int, not text"),
        ("a.jsonl", b'{"text": ""}\n', "line 1 of a.jsonl is empty; remove it, since there is nothing to encode"),
        ("a.jsonl", b'{"text": "a"}\n{"t', "line 2 of a.jsonl is not valid JSON: "),
        ("a.jsonl", b"[1, 2]\n", "line 1 of a.jsonl must be a JSON object or string"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read as parquet: "),
        (
            "a.doc",
            b"one",
            "a.doc ends in none of .txt, .csv, .jsonl, .ndjson, .parquet; say what it is with --input-format",
        ),
    ],
)
def test_bad_input_is_named_with_its_line(
    name: str, content: bytes, message: str, tiny_embedder: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    result = onepass("embed", "-m", tiny_embedder, "--input", name, "--format", "npy", "--output", "out.npy")
    assert failure(result).startswith(message)
    assert not (tmp_path / "out.npy").exists()
    assert not (tmp_path / "out.npy.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["embd"], 2, "No such command 'embd'. Did you mean 'embed'?; see onepass --help"),
        (["rerank"], 2, "Missing argument 'QUERY'; see onepass rerank --help"),
        (
            ["embed", "-m", "MODEL", "a", "--dtype", "int3"],
            2,
            "--dtype int3: it must be one of auto, float32, bfloat16",
        ),
        (["embed", "-m", "MODEL", "a", "--dimensions", "33"], 1, "dimensions is 33, "),
        (["embed", "-m", "MODEL", "a", "-i", "b.txt"], 1, "texts are given both as arguments and with --input"),
        (["embed", "-m", "MODEL", "-i", "none.txt"], 1, "none.txt: No such file or directory"),
        (["embed", "-m", "MODEL", "a", "-o", "none/out.jsonl"], 1, "none/out.jsonl: No such file or directory"),
        (["embed", "-m", "MODEL", "a", "--column", "text"], 1, "arguments have no columns; "),
        (["embed", "-m", "MODEL", ""], 1, "argument 1 is empty; "),
        (["embed", "-m", "nowhere/at/all", "a"], 1, "there is no folder nowhere/at/all, "),
        (["classify", "-m", "MODEL", "a"], 1, "this model cannot classify; it can embed, similarity, rerank"),
        (["embed", "-m", "MODEL", "a", "--config", "none.toml"], 2, "none.toml: the configuration cannot be read: "),
        (["serve", "a=MODEL", "a=b"], 2, 'two models are named "a": '),
        (["serve", "=folder"], 2, "=folder is not NAME=MODEL; both sides need a value"),
        (["serve", "MODEL", "--port", "abc"], 2, "--port abc: it must be a whole number from 0 to 65535"),
    ],
    ids=lambda value: " ".join(value[:1] + value[2:]) if isinstance(value, list) else None,
)
def test_errors_are_one_sentence(arguments: list[str], code: int, message: str, tiny_embedder: Path) -> None:
    arguments = [argument.replace("MODEL", str(tiny_embedder)) for argument in arguments]
    assert failure(onepass(*arguments), code).startswith(message)


def test_the_model_may_come_from_the_environment_and_the_file(tiny_embedder: Path, tmp_path: Path) -> None:
    by_flag = records(onepass("embed", "--model", tiny_embedder, "cats sleep"))
    assert records(onepass("embed", "cats sleep", ONEPASS_MODEL=str(tiny_embedder))) == by_flag
    (tmp_path / "onepass.toml").write_text(f'model = "{tiny_embedder}"')
    assert records(onepass("embed", "cats sleep")) == by_flag
    facts = [json.loads(onepass("info", *argument, "--json").stdout) for argument in ([], [tiny_embedder])]
    assert facts[0]["model"] == facts[1]["model"] == str(tiny_embedder)


@pytest.mark.parametrize("name", ["org/encoder", "FOLDER"])
def test_what_looks_like_a_model_is_a_text_all_the_same_and_said(name: str, tiny_reranker: Path) -> None:
    name = name.replace("FOLDER", str(tiny_reranker))
    for arguments in (["classify", name, TEXTS[0]], ["rerank", name, *TEXTS[:2]]):
        result = onepass(*arguments, ONEPASS_MODEL=str(tiny_reranker))
        note = f"onepass: {name} was taken as a text; a model is named with --model {name}\n"
        assert result.stderr.decode().startswith(note)
    assert onepass("rerank", "-m", tiny_reranker, name, TEXTS[0]).stderr == b""


def test_a_wrong_environment_variable_is_named(tiny_embedder: Path) -> None:
    result = onepass("embed", "-m", tiny_embedder, "a", ONEPASS_MAX_LENGTH="many")
    assert failure(result, 2) == "ONEPASS_MAX_LENGTH=many: it must be a whole number of at least 1"


def test_traceback_on_request_only(tiny_embedder: Path) -> None:
    result = onepass("--traceback", "embed", "-m", tiny_embedder, "")
    assert b"Traceback" in result.stderr
    assert b"EmptyInput" in result.stderr


def test_a_reader_that_leaves_ends_the_command_quietly(tiny_embedder: Path) -> None:
    with subprocess.Popen(
        [ONEPASS, "embed", "-m", tiny_embedder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"cats sleep\n" * 2048)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ctrl_c_ends_the_command_quietly(tiny_embedder: Path) -> None:
    with subprocess.Popen(
        [ONEPASS, "embed", "-m", tiny_embedder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell's background jobs, and so the tests in them, ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"cats sleep\n" * 2048)
        process.stdin.flush()
        process.stdout.readline()  # by now the model is loaded and a further chunk is awaited
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def on_a_terminal(arguments: list[str], **environ: str) -> tuple[int, str]:
    """Exit code of the command, and what a terminal on its stderr shows; stdout goes nowhere."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [ONEPASS, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"} | environ,
    ) as process:
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not part:
                break
            shown += part
        code = process.wait(timeout=60)
    os.close(ours)
    return code, shown.decode()


def test_a_terminal_gets_a_bar_with_tokens_per_second(tiny_embedder: Path) -> None:
    code, shown = on_a_terminal(["embed", "-m", str(tiny_embedder), *TEXTS])
    assert code == 0
    assert "4 texts" in shown
    assert "tokens/s" in shown


def test_no_color_is_respected(tiny_embedder: Path) -> None:
    _, coloured = on_a_terminal(["embed", "-m", str(tiny_embedder), *TEXTS])
    _, plain = on_a_terminal(["embed", "-m", str(tiny_embedder), *TEXTS], NO_COLOR="1")
    assert "\x1b[38;5;" in coloured or "\x1b[3" in coloured
    assert "\x1b[38;5;" not in plain
    assert "\x1b[3" not in plain


def test_help_needs_no_model_and_names_every_command() -> None:
    shown = onepass("--help").stdout.decode()
    assert set(cli.commands) == TASKS | {"serve", "info", "pull"}
    assert all(f"  {name} " in shown for name in cli.commands)
    assert onepass("--version").stdout.startswith(b"onepass 0.")


def test_main_can_be_called_with_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["rerank"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("onepass: Missing argument")
