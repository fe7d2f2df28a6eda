"""/tokenize and /detokenize"""

from __future__ import annotations

import msgspec

from onepass.server.answer import Answer, dumps
from onepass.server.inputs import check_sizes
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.vllm.form import VLLM


class TokenizeRequest(msgspec.Struct, kw_only=True):
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = False
    model: str | None = None


class TokenizeResponse(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


class DetokenizeResponse(msgspec.Struct):
    prompt: str


async def answer_tokenize(call: Call, body: TokenizeRequest) -> Answer:
    encoder = call.choose(body.model)
    check_sizes(call, "prompt", [body.prompt])

    def answer() -> bytes:
        tokens = encoder.tokenizer.tokens(body.prompt, special=body.add_special_tokens)
        return dumps(
            {
                "count": len(tokens),
                "max_model_len": encoder.checkpoint.max_length,
                "tokens": [token.id for token in tokens],
                "token_strs": [token.text for token in tokens] if body.return_token_strs else None,
            }
        )

    return Answer(await encoder.job().off_loop(answer))


async def answer_detokenize(call: Call, body: DetokenizeRequest) -> Answer:
    encoder = call.choose(body.model)
    text = await encoder.job().off_loop(lambda: encoder.tokenizer.decode(body.tokens, skip_special=False))
    return Answer(dumps({"prompt": text}))


OPERATIONS = (
    Operation(
        "/tokenize",
        "tokenize",
        VLLM,
        TokenizeRequest,
        TokenizeResponse,
        answer_tokenize,
        "Token ids of a text.",
        frozenset({"prompt", "messages"}),
    ),
    Operation("/detokenize", "decode", VLLM, DetokenizeRequest, DetokenizeResponse, answer_detokenize, "Text of ids."),
)
