"""Control of a running simulator over HTTP."""

import inspect
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resilient_ai.simulator.faults import Fault
from resilient_ai.simulator.state import Simulator


class FaultOrder(BaseModel):
    """What to do to which model.

    Exactly one way applies: `outage` where it is given, else `rate` where it is given, else the next `times` requests.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    fault: dict[str, Any] = Field(default_factory=dict)
    times: int = Field(default=1, ge=1)
    rate: float | None = Field(default=None, ge=0, le=1)
    seed: int = 0
    outage: bool | None = None


_MADE: dict[str, Callable[..., Fault]] = {
    "status": Fault.status,
    "html": Fault.html,
    "delay": Fault.delay,
    "stall": Fault.stall,
    "cut": Fault.cut,
    "garbage": Fault.garbage,
    "error_event": Fault.error_event,
    "trickle": Fault.trickle,
    "truncated": Fault.truncated,
    "drop": Fault.drop,
}


def admin_routes(simulator: Simulator) -> list[Route]:
    """The routes under `/_simulator`: faults, stats, reset."""

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            simulator.faults.clear()
            return Response(status_code=204)
        try:
            _apply(simulator, FaultOrder.model_validate_json(await request.body()))
        except ValueError as error:
            detail = _reasons(error) if isinstance(error, ValidationError) else str(error)
            return Response(orjson.dumps({"detail": detail}), 400, media_type="application/json")
        return Response(status_code=204)

    async def stats(_: Request) -> Response:  # endpoints are awaited
        return Response(stats_json(simulator), media_type="application/json")

    async def reset(_: Request) -> Response:  # as above
        simulator.reset()
        return Response(status_code=204)

    return [
        Route("/_simulator/faults", faults, methods=["POST", "DELETE"]),
        Route("/_simulator/stats", stats),
        Route("/_simulator/reset", reset, methods=["POST"]),
    ]


def stats_json(simulator: Simulator) -> bytes:
    """The books as JSON, with costs as exact decimal texts."""
    stats = simulator.stats()
    fields: dict[str, Any] = {name: getattr(stats, name) for name in stats.__dataclass_fields__}
    fields["bill"] = format(stats.bill, "f")
    fields["bill_by_model"] = {model: format(cost, "f") for model, cost in stats.bill_by_model.items()}
    for name in ("by_model", "by_route", "by_status"):
        fields[name] = {str(key): count for key, count in fields[name].items()}
    return orjson.dumps(fields)


def _reasons(error: ValidationError) -> str:
    """Return what is wrong with an order, without what pydantic says beside it."""
    parts = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False))
    return "; ".join(f"{name}: {sentence}" if name else sentence for name, sentence in parts)


def _made(kind: str, arguments: dict[str, Any]) -> Fault:
    make = _MADE[kind]
    try:
        return make(**arguments)
    except TypeError:
        # A name that there is not, one that is missing, or a value of another kind.
        takes = ", ".join(str(one) for one in inspect.signature(make).parameters.values())
        raise ValueError(f"fault: {kind} takes {takes}; got {arguments}") from None


def _apply(simulator: Simulator, order: FaultOrder) -> None:
    arguments = dict(order.fault)
    kind = arguments.pop("kind", "status")
    if not isinstance(kind, str) or kind not in _MADE:
        raise ValueError(f"fault: kind must be one of {', '.join(_MADE)}, got {kind!r}")
    if kind == "status":
        arguments.setdefault("code", 503)
    fault = _made(kind, arguments)
    if order.outage is not None:
        if order.model is None:
            raise ValueError("model: an outage needs one")
        simulator.faults.outage(order.model, order.outage, fault)
    elif order.rate is not None:
        simulator.faults.rate(fault, order.rate, order.seed, order.model)
    else:
        simulator.faults.script(order.model, fault, order.times)
