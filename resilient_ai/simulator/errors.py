"""Refusals of the service and the body shapes they travel in."""

from typing import Any, Literal

import orjson

Shape = Literal["openai", "short", "native", "detail", "validation", "plain", "html", "text", "empty"]
"""How an error body looks.

`openai` is `{"error": {"message", "type", "param", "code"}}`, `short` the same with the message alone, `native`
`{"detail": {"error": ...}}`, `detail` `{"detail": ...}`, `validation` `{"detail": [{"loc", "msg", "type"}]}`, `plain`
`{"error": ...}`; `html`, `text` and `empty` are what proxies send.
"""


class ClientGoneError(Exception):
    """The client hung up before its answer had begun."""


class WireError(Exception):
    """A request that is answered with an error status.

    Args:
        status: HTTP status, 400 to 599.
        message: What the caller reads.
        param: Path of the field at fault, where there is one.
        code: Machine-readable code, where there is one.
        shape: Body shape. `None` takes the shape of the route: `openai`, or `native` under `/v1/inference`.
        retry_after: Seconds for a `Retry-After` header; `None` sends none.
        loc: Path of the field for the shape `validation`.
        kind: Type of the failed check for the shape `validation`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        shape: Shape | None = None,
        retry_after: float | None = None,
        loc: tuple[str | int, ...] = (),
        kind: str = "value_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.shape: Shape | None = shape
        self.retry_after = retry_after
        self.loc = loc
        self.kind = kind

    def render(self, *, native: bool) -> tuple[bytes, str]:
        """Body and content type of this refusal on a native or an OpenAI route."""
        shape: Shape = "native" if native else "openai"
        if self.shape is not None:
            shape = self.shape
        if shape == "html":
            page = f"<html><head><title>{self.status}</title></head><body><h1>{self.message}</h1></body></html>"
            return page.encode(), "text/html"
        if shape == "text" or shape == "empty":  # noqa: PLR1714  # a set would widen the type
            return (self.message.encode() if shape == "text" else b""), "text/plain"
        return orjson.dumps(self._object(shape)), "application/json"

    def _object(self, shape: Shape) -> dict[str, Any]:
        if shape == "short":
            return {"error": {"message": self.message}}
        if shape == "native":
            return {"detail": {"error": self.message}}
        if shape == "detail":
            return {"detail": self.message}
        if shape == "validation":
            return {"detail": [{"loc": ["body", *self.loc], "msg": self.message, "type": self.kind}]}
        if shape == "plain":
            return {"error": self.message}
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return {"error": error}


def unsupported(feature: str, model: str, param: str) -> WireError:
    """The refusal of a feature that the model does not offer: status 405."""
    return WireError(405, f"{feature} is not supported for model: {model}", param=param)
