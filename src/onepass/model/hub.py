"""From what the user typed to a folder: of a model that comes with onepass, a path as it is, or of a hub id.

A hub model is downloaded once into huggingface_hub's cache.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onepass.errors import BadCheckpoint, BadSetting, UnsafeFormat
from onepass.model.tokenizer_classes import SENTENCEPIECE

EMBEDDED = {"onepass-mini-1": Path(__file__).parents[1] / "embedded" / "onepass-mini-1"}
"""Models that come with onepass, by name. What a name stands for never changes: another model gets another name."""

HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
CONFIGS = [
    *("config.json", "modules.json", "config_sentence_transformers.json", "sentence_*_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", *SENTENCEPIECE),
    *("[0-9]*_*/*.json", "[0-9]*_*/*.txt"),  # the modules of sentence-transformers: 1_Pooling, 2_Dense
]
SAFE = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "[0-9]*_*/model.safetensors"]
PICKLED = [
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
    "pytorch_model.bin.index.json",
    "[0-9]*_*/pytorch_model.bin",
]


def locate(model: str, revision: str | None = None) -> tuple[Path, str | None]:
    """(folder, commit); the commit is None for an embedded model and for a folder that the user named.

    An embedded model goes before a folder of its name, which ./NAME still means. Raises BadCheckpoint, UnsafeFormat,
    and BadSetting for a revision of what has none.

    Downloads only files that are read. HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and proxies count as they do for
    huggingface_hub; progress is shown on a terminal.
    """
    path = EMBEDDED.get(model) or Path(model).expanduser()
    if model in EMBEDDED and not path.is_dir():
        raise BadCheckpoint(
            f"{model} comes with onepass, but there is no folder {path}; install onepass again, or in a source tree "
            "check that folder out again"
        )
    if path.is_dir():
        if revision is not None:
            kind = "comes with onepass" if model in EMBEDDED else "is a folder"
            raise BadSetting(f"revision is {revision!r}, but {model} {kind}; only hub models have revisions")
        return path, None
    if path.exists():
        raise BadCheckpoint(f"{model} is a file, but a model is a folder with config.json and weights, or a hub id")
    if not HUB_ID.fullmatch(model):
        raise BadCheckpoint(f"there is no folder {model}, and that is no hub id of the form owner/name")
    folder = _download(model, revision, CONFIGS + SAFE)
    if _lacks_weights(folder):
        if importlib.util.find_spec("torch") is None:
            raise UnsafeFormat(
                f"{model} has weights outside model.safetensors; pickles could run code and are read only where torch "
                "is installed"
            )
        folder = _download(model, revision, CONFIGS + PICKLED)
    return folder, folder.name


def _lacks_weights(folder: Path) -> bool:
    """Whether the model, or a module that has weights, came without safetensors."""
    homes = [folder] if (folder / "config.json").is_file() else []
    homes += [sub for kind in ("Transformer", "Dense", "LayerNorm") for sub in folder.glob(f"[0-9]*_{kind}")]
    return any(not any(home.glob("model*.safetensors")) for home in homes)


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Progress(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.setdefault("disable", None)  # tqdm's word for: only on a terminal
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    return _explained(
        model,
        revision,
        lambda: Path(snapshot_download(model, revision=revision, allow_patterns=patterns, tqdm_class=Progress)),
    )


def _explained(model: str, revision: str | None, download: Callable[[], Path]) -> Path:
    """Raises one sentence for each way a download can fail."""
    from huggingface_hub import constants, errors

    at = "" if revision is None else f" at revision {revision!r}"
    try:
        return download()
    except errors.GatedRepoError:
        reason = "is gated: accept its terms on the hub and set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        reason = "is neither a folder here nor a model on the hub; check the name, and set HF_TOKEN if it is private"
    except errors.RevisionNotFoundError:
        reason = "exists, but not that branch, tag or commit"
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        reason = "is not downloaded yet, and the hub cannot be reached; check the network, or give a folder"
        if constants.HF_HUB_OFFLINE:
            reason = "is not downloaded yet, and HF_HUB_OFFLINE forbids to fetch it; unset that, or give a folder"
    except errors.HFValidationError:
        reason = "is no folder here and no valid hub id"
    except errors.HfHubHTTPError as error:
        reason = f"could not be downloaded: the hub answered {error.response.status_code}"
    except Exception as error:
        # httpx, xet and file errors: whatever it is, the user asked for a model and gets a sentence
        reason = f"could not be downloaded ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    raise BadCheckpoint(f"model {model!r}{at} {reason}")
