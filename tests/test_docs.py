"""The documentation is true: its commands run, its outputs are what comes out, its tables are complete."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from onepass import Encoder
from onepass.cli import cli
from onepass.server import native
from onepass.server.app import OPERATIONS, STATUS, routes
from onepass.server.service import Service
from onepass.settings import DEFAULT_MODEL, ServerSettings
from onepass.shell.names import named_models

ROOT = Path(__file__).parents[1]
TASK_PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "docs/http.md", "docs/embedded-model.md")), *TASK_PAGES]
MODELS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "tiny_reranker",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": "tiny_classifier",
    "dslim/bert-base-NER": "tiny_tagger",
    "google-bert/bert-base-uncased": "tiny_filler",
    "MoritzLaurer/deberta-v3-base-zeroshot-v2.0": "tiny_entailer",
    "Qwen/Qwen3-0.6B": "tiny_decoder",
    "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill": "tiny_splade",
    "BAAI/bge-m3": "tiny_bge_m3",
    "unitary/toxic-bert": "tiny_toxic",
    "Qwen/Qwen3-Reranker-0.6B": "tiny_asked",
    "BAAI/bge-reranker-v2-gemma": "tiny_answering",
    "deepset/roberta-base-squad2": "tiny_answerer",
    "colbert-ir/colbertv2.0": "tiny_colbert",
}
"""Fixtures of the checkpoints that stand for the hub ids of the documentation: a real one, and tiny ones."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
ADDRESS = "http://127.0.0.1:8080"
ONEPASS = Path(sys.executable).with_name("onepass")


@dataclass(frozen=True)
class Example:
    """A code block; shown: the output block right below it, or None."""

    page: str
    line: int
    language: str
    code: str
    shown: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def examples(page: Path) -> list[Example]:
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    found = []
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] in ("json", "text"):
            continue
        output = following and following[1] in ("json", "text") and not text[block.end() : following.start()].strip()
        line = text.count("\n", 0, block.start()) + 1
        found.append(Example(page.name, line, block[1], block[2], following[2] if output and following else None))
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]
SERVES = [example for example in EXAMPLES if example.code.startswith("onepass serve")]
MAKES = [example for example in EXAMPLES if example.code.startswith("make ")]
SHELL = [e for e in EXAMPLES if e.language == "bash" and e not in SERVES + MAKES]
PYTHON = [example for example in EXAMPLES if example.language == "python"]


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the hub ids of the documentation are folders."""
    place = tmp_path_factory.mktemp("place")
    for name, fixture in MODELS.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(request.getfixturevalue(fixture))
    with contextlib.chdir(place):
        yield place


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """The address of `onepass serve`, ready; SIGTERM must end it with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(ONEPASS), "serve", *arguments, "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command) as process:
        address = f"http://127.0.0.1:{port}"
        limit = time.monotonic() + 60
        while not ready(address):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < limit, "the server did not become ready"
            time.sleep(0.05)
        try:
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


def ready(address: str) -> bool:
    try:
        return httpx.get(address + "/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def one_model(place: Path) -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def several_models(place: Path) -> Iterator[str]:
    with serving(
        "all-MiniLM-L6-v2=sentence-transformers/all-MiniLM-L6-v2",
        "reranker=cross-encoder/ms-marco-MiniLM-L6-v2",
        "sentiment=distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        *(f"{name}={name}" for name in MODELS),
    ) as address:
        yield address


def served(example: Example, request: pytest.FixtureRequest) -> str:
    """The block with the address of a server that has the models it asks for."""
    if ADDRESS not in example.code:
        return example.code
    named = re.search(r'(?:"model": "|/models/)([\w./-]+)', example.code)
    one = named is None or named[1] == DEFAULT_MODEL
    return example.code.replace(ADDRESS, request.getfixturevalue("one_model" if one else "several_models"))


@pytest.mark.parametrize("example", SHELL, ids=str)
def test_shell_blocks_run_and_print_what_is_shown(
    example: Example, place: Path, request: pytest.FixtureRequest
) -> None:
    if "curl" in example.code and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    path = f"{ONEPASS.parent}{os.pathsep}{os.environ['PATH']}"
    code = served(example, request).replace("curl -s", "curl -sS --fail-with-body")
    result = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout
    if example.shown is not None:
        assert_shown(example.shown, result.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_order_and_print_what_is_shown(
    page: Path, place: Path, request: pytest.FixtureRequest
) -> None:
    names: dict[str, Any] = {}
    for example in [example for example in PYTHON if example.page == page.name]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(served(example, request), str(example), "exec"), names)
        assert printed.getvalue()
        if example.shown is not None:
            assert_shown(example.shown, printed.getvalue())


@pytest.mark.parametrize("example", SERVES, ids=str)
def test_serve_blocks_serve(example: Example, place: Path) -> None:
    arguments = example.code.split()[2:]
    with serving(*arguments) as address:
        models = httpx.get(address + "/v1/models").json()["data"]
        assert {model["id"] for model in models} == {*named_models(arguments or [DEFAULT_MODEL])}


@pytest.mark.parametrize("example", MAKES, ids=str)
def test_make_blocks_name_targets(example: Example) -> None:
    for line in example.code.splitlines():
        target = line.split("#")[0].split()[1]
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_the_search_example_finds_lines(place: Path) -> None:
    lines = ["The train leaves at seven.", "The miller turns grain into flour.", "Giraffes sleep little."]
    (place / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, str(ROOT / "examples" / "search.py"), "lines.txt", "Who grinds the corn?"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert sorted(line.split("  ", 1)[1] for line in printed.splitlines()) == sorted(lines)


def test_no_block_is_left_out() -> None:
    assert len(SHELL) + len(SERVES) + len(MAKES) + len(PYTHON) == len(EXAMPLES)
    assert all((SHELL, SERVES, MAKES, PYTHON))


def assert_shown(shown: str, printed: str) -> None:
    """Equal but for spaces, and for the last shown digit of a number with a fraction."""
    assert words(shown) == words(printed)
    for expected, found in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        digits = len(expected.partition(".")[2])
        assert abs(float(expected) - float(found)) <= 2 * 10.0**-digits, f"{expected} is shown, {found} is printed"


def words(text: str) -> str:
    return "".join(NUMBER.sub("#", text).split())


def test_generated_pages_are_current() -> None:
    for path, text in runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old; run make docs"


def test_the_family_shown_is_the_family_there_is() -> None:
    page = (ROOT / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
    file = (ROOT / "src" / "onepass" / "model" / "families" / "mpnet.py").read_text(encoding="utf-8")
    assert f"```python\n{file}```" in page


def test_every_route_is_in_the_documentation_and_no_other() -> None:
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    documented = set()
    for row in re.findall(r"^\| ((?:GET|POST) .*?) \|", page, re.MULTILINE):
        for method, paths in re.findall(r"(GET|POST) ([^A-Z]+)", row):
            documented |= {(method, path) for path in re.findall(r"`(/[^`]*)`", paths)}
    offered = {("POST", operation.path) for operation in OPERATIONS}
    for route in routes(Service(ServerSettings())):
        assert hasattr(route, "path")
        assert hasattr(route, "methods")
        offered |= {(method, route.path) for method in route.methods or {"POST"} if method != "HEAD"}
    assert documented == offered


def test_every_task_is_in_the_table_with_its_method_route_command_and_page() -> None:
    table = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| \[`(\w+)`\]\((.+?)\) \|.*\| `(.+?)` \| (?:`onepass (.+?)`|-) \|$", re.MULTILINE)
    rows = row.findall(table)
    assert {route for _, _, route, _ in rows} == {operation.path for operation in native.OPERATIONS}
    assert {ROOT / "docs" / page for _, page, _, _ in rows} == {*TASK_PAGES}
    assert {command for *_, command in rows if command} == {*cli.commands} - {"serve", "info", "pull"}
    for task, page, route, command in rows:
        assert hasattr(Encoder, task)
        assert hasattr(Encoder, f"a{task}")
        assert (page, route) == (f"tasks/{task}.md", f"/onepass/v1/{task}")
        codes = [example.code for example in EXAMPLES if example.page == f"{task}.md"]
        assert any(f".{task}(" in code for code in codes)
        assert not command or any(code.startswith(f"onepass {command} ") for code in codes)
        assert any(route in code and code.startswith("curl") for code in codes)


def test_every_error_code_is_documented_with_its_status() -> None:
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    expected = {}
    dialects = {operation.dialect.name: operation.dialect for operation in OPERATIONS}
    spelt = {"tei": "TEI", "openai": "OpenAI", "ollama": "Ollama", "vllm": "vLLM"}
    for code, status in STATUS.items():
        others = [f"{spelt[name]} {one.statuses[code]}" for name, one in dialects.items() if code in one.statuses]
        expected[code] = ", ".join([f"{status}", *others])
    assert documented == expected
