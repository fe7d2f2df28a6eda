"""Hub ids: what is downloaded, which variables count, and one sentence for each way it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import COMMIT, TOKEN, Hub, serve_hub
from safetensors.torch import load_file
from tiny import tiny_checkpoint

# huggingface_hub reads its variables when it is imported, hence a process for each case
LOAD = """
import json, sys
from onepass.errors import OnepassError
from onepass.model.checkpoint import load_checkpoint
try:
    loaded = load_checkpoint(sys.argv[1], revision=sys.argv[2] or None)
except OnepassError as error:
    print(json.dumps([type(error).__name__, str(error)]))
else:
    print(json.dumps([loaded.name, loaded.revision, loaded.dimensions]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("hub") / "tiny", "bert", "embed")
    for unread in ("README.md", "tf_model.h5", "pytorch_model.bin", "onnx/model.onnx"):
        (folder / unread).parent.mkdir(exist_ok=True)
        (folder / unread).write_text("not a model")
    with serve_hub(folder) as server:
        yield server


def load(hub: Hub, home: Path, model: str, revision: str = "", **environment: str) -> tuple[list[Any], str]:
    """What the process printed, and what it wrote to stderr."""
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", LOAD, model, revision], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_only_what_is_read_is_downloaded_once_and_silently(hub: Hub, tmp_path: Path) -> None:
    hub.requested.clear()
    assert load(hub, tmp_path, "acme/tiny", "v1") == (["acme/tiny", COMMIT, 32], "")
    assert sorted(hub.requested) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    hub.requested.clear()
    assert load(hub, tmp_path, "acme/tiny", COMMIT)[0] == ["acme/tiny", COMMIT, 32]
    assert load(hub, tmp_path, "acme/tiny", COMMIT, HF_HUB_OFFLINE="1")[0] == ["acme/tiny", COMMIT, 32]
    assert hub.requested == []


def test_a_token_opens_a_private_model(hub: Hub, tmp_path: Path) -> None:
    assert load(hub, tmp_path, "acme/private", HF_TOKEN=TOKEN)[0] == ["acme/private", COMMIT, 32]


@pytest.mark.parametrize(
    ("model", "revision", "environment", "sentence"),
    [
        ("acme/gated", "", {}, "model 'acme/gated' is gated: accept its terms on the hub and set HF_TOKEN"),
        (
            "acme/private",
            "",
            {},
            "model 'acme/private' is neither a folder here nor a model on the hub; check the name, and set HF_TOKEN if "
            "it is private",
        ),
        ("acme/tiny", "v9", {}, "model 'acme/tiny' at revision 'v9' exists, but not that branch, tag or commit"),
        (
            "acme/tiny",
            "",
            {"HF_HUB_OFFLINE": "1"},
            "model 'acme/tiny' is not downloaded yet, and HF_HUB_OFFLINE forbids to fetch it; unset that, or give a "
            "folder",
        ),
        (
            "acme/tiny",
            "",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "model 'acme/tiny' is not downloaded yet, and the hub cannot be reached; check the network, or give a "
            "folder",
        ),
        ("a--b..c", "", {}, "model 'a--b..c' is no folder here and no valid hub id"),
        ("./absent", "", {}, "there is no folder ./absent, and that is no hub id of the form owner/name"),
    ],
)
def test_what_cannot_be_downloaded_is_said_in_one_sentence(
    hub: Hub, tmp_path: Path, model: str, revision: str, environment: dict[str, str], sentence: str
) -> None:
    assert load(hub, tmp_path, model, revision, **environment)[0] == ["BadCheckpoint", sentence]


def test_pickled_weights_are_fetched_where_torch_can_read_them(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", "bert", "embed")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with serve_hub(folder) as hub:
        assert load(hub, tmp_path / "home", "acme/tiny")[0] == ["acme/tiny", COMMIT, 32]
        assert "pytorch_model.bin" in hub.requested
