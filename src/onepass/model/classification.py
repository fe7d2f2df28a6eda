"""What a classifier's outputs are called and how its scores are finished."""

from __future__ import annotations

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config
from onepass.model.heads import Finish

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
FINISHES: dict[str, Finish] = {"Identity": "none", "Sigmoid": "sigmoid", "Softmax": "softmax"}


def labels_of(config: Config) -> tuple[str, ...]:
    """Names of the output columns in order. Raises BadCheckpoint where id2label has gaps."""
    names = config.get("id2label")
    if names is None:
        return tuple(f"LABEL_{index}" for index in range(config.integer("num_labels", 2, least=1)))
    if not isinstance(names, dict) or not names:
        raise config.wrong("id2label", "an object from column numbers to names")
    try:
        columns = {int(key): str(name) for key, name in names.items()}
    except ValueError:
        raise config.wrong("id2label", "an object from column numbers to names") from None
    if sorted(columns) != list(range(len(columns))):
        raise BadCheckpoint(f"{config.source} numbers id2label {sorted(columns)}; it must count from 0 without gaps")
    return tuple(columns[index] for index in range(len(columns)))


def finish_of(config: Config, saved: Config, labels: int, notes: list[str]) -> Finish:
    """From logits to scores: what a CrossEncoder file names, else what problem_type and the number of labels imply.

    saved: config_sentence_transformers.json. Raises UnsupportedOption for an activation by name.
    """
    config.only("problem_type", *PROBLEMS)
    problem = config.text("problem_type", "")
    implied: Finish = "softmax"
    if problem == "regression":
        implied = "none"
    elif labels == 1 or problem == "multi_label_classification":
        implied = "sigmoid"
    named = _activation(config, saved)
    if named is None:
        return implied
    name, source, key = named
    if not name.startswith("torch."):
        notes.append(f"{source} names the activation {name!r}, which is not torch's; {implied} is used instead.")
        return implied
    finish = FINISHES.get(name.rpartition(".")[2])
    if finish is None:
        known = "Identity, Sigmoid and Softmax of torch.nn"
        raise UnsupportedOption(f"{source} sets {key} to {name!r}, which is not implemented; known are {known}")
    if finish == "none" and labels > 1 and implied != "none":
        # sentence-transformers writes Identity for every model with several labels: it says nothing about this one
        notes.append(f"{source} sets {key} to Identity over {labels} labels; scores are finished by {implied}.")
        return implied
    return finish


def _activation(config: Config, saved: Config) -> tuple[str, str, str] | None:
    """(dotted name, file, key) of the activation that a CrossEncoder was saved with, newest spelling first."""
    nested = config.get("sentence_transformers")
    places = [
        (saved, "activation_fn"),
        (Config(nested if isinstance(nested, dict) else {}, config.source), "activation_fn"),
        (config, "sbert_ce_default_activation_function"),
    ]
    for place, key in places:
        if name := place.text(key, ""):
            return name, place.source, key
    return None
