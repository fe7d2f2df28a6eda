"""Every option, once: its name, type, default and one line of help.

Flags, environment variables (ONEPASS_PORT), onepass.toml and docs/settings.md derive from this table. A flag wins over
the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, help: str, **more: Any) -> Any:
    """A field with its help; `choices` limits a string, `least` a number, `secret` keeps the value out of logs."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a model is loaded; all commands take these."""

    revision: str | None = option(None, "Branch, tag or commit of a hub model.")
    device: str = option("auto", "Where to run.", choices=("auto", "cpu"))
    dtype: str = option("auto", "Arithmetic of the matrix products.", choices=("auto", "float32", "bfloat16"))
    engine: str = option("auto", "Engine to run with.", choices=("auto", "native", "reference"))
    max_length: int | None = option(None, "Longest row in tokens, at most what the model allows.", least=1)
    cores: int | None = option(None, "Compute threads; default: the physical cores this process may use.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server listens, limits and reports."""

    host: str = option("127.0.0.1", "Address to listen on.")
    port: int = option(8080, "Port to listen on; 0 picks a free one.", least=0)
    api_key: str | None = option(None, "Bearer key that requests must carry; several are separated by commas.", secret=True)
    max_body: int = option(33_554_432, "Largest request body in bytes; above it 413.", least=1)
    max_inputs: int = option(16_384, "Most texts in one request; above it 413.", least=1)
    queue_tokens: int = option(8_388_608, "Tokens admitted at once over all requests; above it 429.", least=1)
    auto_truncate: bool = option(True, "Cut over-long inputs where the request does not say; a header reports it.")
    drain_seconds: float = option(30.0, "How long running requests may take to finish after SIGTERM.", least=0)
    log_level: str = option("info", "Least severe message to log.", choices=("debug", "info", "warning", "error"))
    log_format: str = option("text", "Log lines for people or for machines.", choices=("text", "json"))
