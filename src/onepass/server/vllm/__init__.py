"""vLLM's pooling routes, /tokenize and /detokenize, with its rerank where the body can only be vLLM's."""

from onepass.server.vllm import classify, pooling, score, tokenize

OPERATIONS = tuple(operation for route in (classify, score, pooling, tokenize) for operation in route.OPERATIONS)
