"""What Discord says when it refuses.

The shapes are those of the API reference ("Error Messages") and of the table of JSON error
codes: a status, a `code`, a `message`, and for form errors (50035) a tree of `errors` whose
leaves are `{"_errors": [{"code", "message"}]}`.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than success; the REST layer turns it into JSON."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        errors: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} ({code}): {message}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors
        self.extra = extra or {}

    def body(self) -> dict[str, Any]:
        """The JSON Discord would send."""
        found: dict[str, Any] = {"message": self.message, "code": self.code, **self.extra}
        if self.errors is not None:
            found["errors"] = self.errors
        return found


class FormErrors:
    """Collects the faults of one body, so that all of them are told at once, as Discord does."""

    def __init__(self, prefix: tuple[str | int, ...] = ()) -> None:
        self._prefix = prefix
        self._tree: dict[str, Any] = {}

    def add(self, path: tuple[str | int, ...], code: str, message: str) -> None:
        """Note one fault at a path such as ("embeds", 0, "title")."""
        node = self._tree
        for step in (*self._prefix, *path):
            node = node.setdefault(str(step), {})
        node.setdefault("_errors", []).append({"code": code, "message": message})

    def raise_if_any(self) -> None:
        """Raise the 400 that carries everything noted so far."""
        if self._tree:
            raise ApiError(400, 50035, "Invalid Form Body", errors=self._tree)

    # The wordings below are Discord's own.

    def required(self, path: tuple[str | int, ...]) -> None:
        self.add(path, "BASE_TYPE_REQUIRED", "This field is required")

    def too_long(self, path: tuple[str | int, ...], limit: int) -> None:
        self.add(path, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")

    def bad_length(self, path: tuple[str | int, ...], low: int, high: int) -> None:
        self.add(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {low} and {high} in length.")

    def not_one_of(self, path: tuple[str | int, ...], allowed: tuple[Any, ...]) -> None:
        self.add(path, "BASE_TYPE_CHOICES", f"Value must be one of {allowed}.")

    def wrong_type(self, path: tuple[str | int, ...], value: Any, wanted: str) -> None:
        self.add(
            path,
            f"{wanted.upper()}_TYPE_CONVERT",
            f'Could not interpret "{value}" as {wanted}.',
        )


def invalid_form(path: tuple[str | int, ...], code: str, message: str) -> ApiError:
    """A 50035 with a single fault."""
    faults = FormErrors()
    faults.add(path, code, message)
    try:
        faults.raise_if_any()
    except ApiError as error:
        return error
    raise AssertionError("unreachable")


def unauthorized() -> ApiError:
    return ApiError(401, 0, "401: Unauthorized")


def not_found_route() -> ApiError:
    return ApiError(404, 0, "404: Not Found")


def method_not_allowed() -> ApiError:
    return ApiError(405, 0, "405: Method Not Allowed")


def unknown_channel() -> ApiError:
    return ApiError(404, 10003, "Unknown Channel")


def unknown_guild() -> ApiError:
    return ApiError(404, 10004, "Unknown Guild")


def unknown_member() -> ApiError:
    return ApiError(404, 10007, "Unknown Member")


def unknown_message() -> ApiError:
    return ApiError(404, 10008, "Unknown Message")


def unknown_user() -> ApiError:
    return ApiError(404, 10013, "Unknown User")


def unknown_webhook() -> ApiError:
    return ApiError(404, 10015, "Unknown Webhook")


def unknown_interaction() -> ApiError:
    return ApiError(404, 10062, "Unknown interaction")


def unknown_command() -> ApiError:
    return ApiError(404, 10063, "Unknown application command")


def already_acknowledged() -> ApiError:
    return ApiError(400, 40060, "Interaction has already been acknowledged.")


def missing_access() -> ApiError:
    return ApiError(403, 50001, "Missing Access")


def others_message() -> ApiError:
    return ApiError(403, 50005, "Cannot edit a message authored by another user")


def empty_message() -> ApiError:
    return ApiError(400, 50006, "Cannot send an empty message")


def missing_permissions() -> ApiError:
    return ApiError(403, 50013, "Missing Permissions")


def invalid_webhook_token() -> ApiError:
    return ApiError(401, 50027, "Invalid Webhook Token")
