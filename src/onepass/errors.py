"""Everything onepass raises, in one tree.

    OnepassError
    ├── InvalidInput             the question cannot be answered as asked
    │   ├── EmptyInput           nothing to encode
    │   ├── InputTooLong         more tokens than the model takes, and truncation is off
    │   ├── TokenOutOfRange      token ids that are not this vocabulary's
    │   ├── UnknownModel         no model of that name is served
    │   ├── WrongTask            the model has no head for the task
    │   └── TooLarge             more than could ever be admitted at once
    ├── BadCheckpoint            the model cannot be loaded as it lies there
    │   ├── UnknownFamily        no family file for its model_type
    │   ├── UnsupportedOption    a config option that no engine here runs
    │   ├── MissingTensor        the config promises a tensor that the files lack
    │   ├── LeftoverTensor       the files hold a tensor that nothing uses
    │   └── UnsafeFormat         weights that only pickle could read
    ├── BadSetting               a flag, environment variable, configuration value or argument is wrong
    ├── MissingExtra             an optional dependency is not installed
    ├── Overloaded               no room now; retry_after says when to come back
    ├── Unavailable              loading or draining
    ├── Cancelled                the caller left, or the encoder was closed
    └── EngineFailure            the engine failed on this row

Each class has a stable `code` word. None of them knows HTTP: server/app.py holds the one table from code to status.
A message is one sentence that says what was wrong, the value, the limit and what to do.
"""

from __future__ import annotations


class OnepassError(Exception):
    code = "error"


class InvalidInput(OnepassError):
    code = "invalid_input"


class EmptyInput(InvalidInput):
    code = "empty_input"


class InputTooLong(InvalidInput):
    """`size` of the input and the `limit` it passes, both in `unit`s: "tokens" or "characters"."""

    code = "input_too_long"

    def __init__(self, message: str, size: int, limit: int, unit: str = "tokens") -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit
        self.unit = unit


class TokenOutOfRange(InvalidInput):
    code = "token_out_of_range"


class UnknownModel(InvalidInput):
    code = "unknown_model"


class WrongTask(InvalidInput):
    code = "wrong_task"


class TooLarge(InvalidInput):
    code = "too_large"


class BadCheckpoint(OnepassError):
    code = "bad_checkpoint"


class UnknownFamily(BadCheckpoint):
    code = "unknown_family"


class UnsupportedOption(BadCheckpoint):
    code = "unsupported_option"


class MissingTensor(BadCheckpoint):
    code = "missing_tensor"


class LeftoverTensor(BadCheckpoint):
    code = "leftover_tensor"


class UnsafeFormat(BadCheckpoint):
    code = "unsafe_format"


class BadSetting(OnepassError):
    code = "bad_setting"


class MissingExtra(OnepassError):
    code = "missing_extra"


class Overloaded(OnepassError):
    """No room in the queue now.

    `retry_after`: seconds until the queue is expected to have drained far enough.
    """

    code = "overloaded"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(OnepassError):
    code = "unavailable"


class Cancelled(OnepassError):
    code = "cancelled"


class EngineFailure(OnepassError):
    code = "engine_failure"
