"""Hugging Face's inference API, as huggingface_hub's InferenceClient speaks it: a model's task, `inputs`, `parameters`.

The client posts to the URL that it is given as its model: this server's own (/), or one with a name (/models/<name>).
Answers are those of the pipelines of transformers; embeddings and rankings are TEI's, and so are errors.
"""

from onepass.server.hugging_face.tasks import OPERATIONS

__all__ = ["OPERATIONS"]
