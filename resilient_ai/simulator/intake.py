"""What every request goes through first: the key, the bytes, the JSON."""

import zlib
from typing import Any

import orjson
from starlette.types import Receive

from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.jsonlike import is_object

_GZIP = 31  # zlib's window size for data with a gzip header


def authenticate(headers: dict[bytes, bytes], keys: frozenset[str] | None) -> str:
    """The API key of a request, from `Authorization: Bearer` in any case or `xi-api-key`; 401 without a good one."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else ""
    key = key or headers.get(b"xi-api-key", b"").decode("latin-1").strip()
    accepted = key in keys if keys is not None else bool(key) and not key.startswith("bad")
    if not accepted:
        raise WireError(401, "Not authenticated", shape="openai")
    return key


async def read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The body of a request, unpacked; 413 above the limit, 415 for an encoding that is not accepted."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"gzip":
        body = _gunzip(body, limit)
    elif encoding != b"identity":
        # guess: other encodings are documented as not accepted; the status is not.
        raise WireError(415, f"Unsupported content encoding: {encoding.decode('latin-1')}")
    if len(body) > limit:
        raise WireError(413, "Request body too large")  # guess: the body of a 413 is not known.
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj(_GZIP).decompress(body, limit + 1)
    except zlib.error as error:
        raise WireError(400, "Invalid gzip body") from error  # guess: a broken body is nowhere documented.


def parse_object(body: bytes, *, native: bool) -> dict[str, Any]:
    """The JSON object that a body holds; 422 for anything else."""
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # guess: the framework's usual answer to a body that is no JSON.
        raise WireError(
            422, "JSON decode error", shape="validation" if native else None, kind="json_invalid"
        ) from error
    if not is_object(data):
        message = "Input should be a valid dictionary"
        raise WireError(422, message, shape="validation" if native else None, kind="dict_type")
    return data
