"""How a query and a document become one text, for models that are asked in words how well they fit.

A template is text with slots. It is read off a checkpoint's own chat template, as sentence-transformers 6.2 fills that:
messages of the roles "query" and "document", after one of the role "system" where there is an instruction. The chat
template is rendered when the model is loaded and never again, in jinja2's sandbox and without jinja2's functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config

INSTRUCTION, QUERY, DOCUMENT = (f"\x02<'{role}' & \"Co\">\x03" for role in ("system", "query", "document"))
"""Slots: what no text holds, and what a template that changes its texts would change."""

ROLES = {"system": INSTRUCTION, "query": QUERY, "document": DOCUMENT}
SPACE = " \n"
NOT_FILLED = ("chat_template", "continue_final_message", "max_length", "restore_suffix", "truncation")
"""Options of transformers' apply_chat_template that change what is done with the template, or the text."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """plain: text with slots for query and document.  instructed: with one for an instruction, too, or None.

    trimmed: texts lose the white space around them when they are put in.
    """

    plain: str
    instructed: str | None = None
    trimmed: bool = False

    @property
    def size(self) -> int:
        """Bytes of the text without what goes into the slots, at most."""
        return len((self.instructed or self.plain).encode())

    def around(self, query: str, instruction: str) -> tuple[str, str]:
        """The text before a document and behind it. instruction: none if empty, and only where `instructed` is."""
        template = self.plain
        if instruction:
            assert self.instructed is not None
            template = self.instructed
        before, after = (
            self.put(query).join(part.replace(INSTRUCTION, self.put(instruction)) for part in side.split(QUERY))
            for side in template.split(DOCUMENT)
        )
        return before, after

    def put(self, text: str) -> str:
        return text.strip() if self.trimmed else text


@dataclass(frozen=True, slots=True)
class Chat:
    """What sentence_bert_config.json says of the chat template.

    structured: a message's content is a list of parts.  given: more variables of the template.
    """

    structured: bool
    given: Mapping[str, Any]


def read_chat(config: Config) -> Chat | None:
    """None where texts do not go through a chat template."""
    inputs = config.get("modality_config")
    if not isinstance(inputs, dict) or "message" not in inputs:
        return None
    entry = Config(inputs["message"] if isinstance(inputs["message"], dict) else {}, config.source)
    entry.only("format", "structured", "flat")
    options = config.get("processing_kwargs")
    given = options.get("chat_template") if isinstance(options, dict) else None
    return Chat(entry.text("format", "flat") == "structured", given if isinstance(given, dict) else {})


def read_pair_template(folder: Path, chat: Chat) -> PairTemplate:
    """The template of pairs out of a checkpoint's chat template. Raises BadCheckpoint, UnsupportedOption."""
    settings = Config.read_if_there(folder / "tokenizer_config.json", "tokenizer_config.json")
    source = _source(folder, settings)
    for name in NOT_FILLED:
        if name in chat.given:
            raise UnsupportedOption(f"processing_kwargs sets {name!r} for the chat template, which is not implemented")
    special = {key: _content(value) for key, value in settings.values.items() if key.endswith("_token")}
    render = _renderer(source, {key: text for key, text in special.items() if text} | dict(chat.given))

    def rendered(roles: Mapping[str, str]) -> str:
        return render(
            [
                {"role": role, "content": [{"type": "text", "text": text}] if chat.structured else text}
                for role, text in roles.items()
            ]
        )

    pair = {role: slot for role, slot in ROLES.items() if role != "system"}
    plain = rendered(pair)
    if plain.count(DOCUMENT) != 1 or QUERY not in plain:
        raise UnsupportedOption(
            "the chat template does not put a query and a document into the text once and as they are; give the model "
            "one that does"
        )
    try:
        instructed = rendered(ROLES)
    except BadCheckpoint:
        instructed = ""
    keeps = instructed.count(DOCUMENT) == 1 and QUERY in instructed and INSTRUCTION in instructed
    return PairTemplate(plain, instructed if keeps else None, _trims(plain, rendered(_spaced(pair)), pair))


def _source(folder: Path, settings: Config) -> str:
    """The chat template's text, from the file of its own or from tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    stored = settings.get("chat_template")
    if isinstance(stored, list):
        named = {entry.get("name"): entry.get("template") for entry in stored if isinstance(entry, dict)}
        stored = named.get("default")
    if not isinstance(stored, str):
        raise BadCheckpoint("the model's texts go through a chat template, but its tokenizer has none")
    return stored


def _renderer(source: str, variables: Mapping[str, Any]) -> Any:
    """A function from messages to text, as transformers renders them. Raises BadCheckpoint."""
    import jinja2  # only such checkpoints need it
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals = {"namespace": environment.globals["namespace"], "raise_exception": refuse}
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)

    def render(messages: list[dict[str, Any]]) -> str:
        try:
            template = environment.from_string(source)
            return template.render(messages=messages, **{"add_generation_prompt": False, **variables})
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            reason = " ".join(str(error).split())
            raise BadCheckpoint(f"the chat template cannot be filled with a query and a document: {reason}") from None

    return render


def _spaced(roles: Mapping[str, str]) -> dict[str, str]:
    return {role: f"{SPACE}{slot}{SPACE}" for role, slot in roles.items()}


def _trims(plain: str, spaced: str, roles: Mapping[str, str]) -> bool:
    """Whether white space around the texts is lost. Raises UnsupportedOption where it is neither lost nor kept."""
    if spaced == plain:
        return True
    kept = plain
    for role, text in _spaced(roles).items():
        kept = kept.replace(roles[role], text)
    if spaced != kept:
        raise UnsupportedOption("the chat template changes the texts it is given, which is not implemented")
    return False


def _content(token: Any) -> str | None:
    """A special token written as a string or as an object."""
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else None
