"""What goes wrong in HTTP itself, before or after a model is asked; onepass.errors knows nothing of it."""

from __future__ import annotations

from onepass.errors import InvalidInput, OnepassError


class Unauthorized(InvalidInput):
    code = "unauthorized"


class NotFound(InvalidInput):
    code = "not_found"


class MethodNotAllowed(InvalidInput):
    code = "method_not_allowed"


class UnsupportedMedia(InvalidInput):
    code = "unsupported_media"


class BadJson(InvalidInput):
    code = "bad_json"


class BodyTooLarge(InvalidInput):
    code = "body_too_large"


class InternalError(OnepassError):
    code = "internal"
