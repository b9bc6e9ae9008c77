"""The routes of the simulated service."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from resilient_ai.simulator.admin import admin_routes
from resilient_ai.simulator.chat import chat
from resilient_ai.simulator.completions import completions
from resilient_ai.simulator.embeddings import embeddings
from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.exchange import Handler, ModelRoute
from resilient_ai.simulator.images import edits, generations, variations
from resilient_ai.simulator.intake import authenticate
from resilient_ai.simulator.models_routes import native_models, one_model, openai_models, openrouter_models
from resilient_ai.simulator.native import inference
from resilient_ai.simulator.state import Simulator

_OPENAI: dict[str, Handler] = {
    "chat/completions": chat,
    "completions": completions,
    "embeddings": embeddings,
    "images/generations": generations,
    "images/edits": edits,
    "images/variations": variations,
}


def create_app(simulator: Simulator) -> Starlette:
    """The service as an ASGI application, for any server.

    Faults that break a connection need the server of `serve`; under another one they end in an error of that server.

    Args:
        simulator: Its options apply, its books are written, its faults happen.

    >>> create_app(Simulator()).url_path_for("list")
    '/models/list'
    """
    errors: dict[Any, Callable[..., Awaitable[Response]]] = {HTTPException: _framework_error}
    return Starlette(routes=_routes(simulator), exception_handlers=errors)


def _routes(simulator: Simulator) -> list[BaseRoute]:
    routes: list[BaseRoute] = []
    for path, handler in _OPENAI.items():
        endpoint = ModelRoute(simulator, path, handler)
        routes += [Route(f"{prefix}/{path}", endpoint, methods=["POST"]) for prefix in ("/v1/openai", "/v1")]
    native = ModelRoute(simulator, "inference", inference, native=True)
    return [
        *routes,
        Route("/v1/inference/deploy/{deploy_id}", native, methods=["POST"]),
        Route("/v1/inference/{model:path}", native, methods=["POST"]),
        *_lists(simulator),
        Route("/v1/me/rate_limit", _Keyed(simulator)),
        *admin_routes(simulator),
    ]


def _lists(simulator: Simulator) -> list[BaseRoute]:
    """The public lists of models, as the simulator's catalogue is at the moment."""

    async def openai(request: Request) -> Response:
        with_meta = request.query_params.get("filter") == "with_meta"
        return _json(openai_models(simulator.catalogue, with_meta=with_meta))

    async def native(_: Request) -> Response:
        return _json(native_models(simulator.catalogue))

    async def openrouter(_: Request) -> Response:
        return _json(openrouter_models(simulator.catalogue))

    async def one(request: Request) -> Response:
        try:
            return _json(one_model(simulator.catalogue, request.path_params["name"]))
        except WireError as error:
            return _refusal(error)

    return [
        Route("/v1/openai/models", openai),
        Route("/v1/models", openai),
        Route("/models/list", native, name="list"),
        Route("/openrouter/models", openrouter),
        Route("/models/{name:path}", one),
    ]


class _Keyed:
    """The account's limits, for those with a key."""

    def __init__(self, simulator: Simulator) -> None:
        self._settings = simulator.settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            authenticate(dict(scope["headers"]), self._settings.keys)
            response = _json(orjson.dumps({"rate_limit": self._settings.limit, "tpm_rate_limit": None}))
        except WireError as error:
            response = _refusal(error)
        await response(scope, receive, send)


async def _framework_error(_: Request, error: HTTPException) -> Response:
    return _json(orjson.dumps({"detail": error.detail}), status=error.status_code)


def _refusal(error: WireError) -> Response:
    body, media_type = error.render(native=False)
    return Response(body, error.status, media_type=media_type)


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
