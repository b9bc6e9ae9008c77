"""What metrics are told apart by: closed sets of attributes, made once and kept."""

from collections.abc import Mapping
from typing import NamedTuple

from resilient_ai.core import semconv as names
from resilient_ai.core._told import told_name
from resilient_ai.middleware._span_attributes import server_of

Attributes = Mapping[str, str | int]

# More models than the service has, and more budgets than anybody looks at. A name beyond them shows as "other".
_MOST_NAMES = 512
# At so many sets all are forgotten, to be made again: an answer may name any model, and a caller any tenant.
_MOST_SETS = 4096
_OTHER = "other"


class Names:
    """Names that may become the value of an attribute: the first so many of them, every other one is "other".

    >>> tenants = Names(1)
    >>> tenants.of("a"), tenants.of("b"), tenants.of("a")
    ('a', 'other', 'a')
    """

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def of(self, name: str) -> str:
        """Return what a name shows as."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self._most:
                return _OTHER
            known = self._known[name] = name
        return known


# How a call is told from others: its kind, origin and model; the model that answered; its outcome, what the cache did, its error;
# and its tenant. A plain tuple, as one is made for every call.
CallKey = tuple[str, str, str, str | None, str, str, str | None, str | None]


class CallAttributes(NamedTuple):
    """The attributes of each metric of a call.

    Args:
        client: For `gen_ai.client.*`, with the error.
        faultless: The same without it, for streams that had begun.
        input: For tokens of the prompt. Those of tokens do not say where the server is, which durations do.
        output: For tokens of the answer.
        sizes: For tokens of both, with the error.
        counted: For counters of tokens.
        request: For durations of requests.
        attempts: For numbers of attempts.
        cache: For answers of the cache.
        saved: For what the cache has saved.
    """

    client: Attributes
    faultless: Attributes
    input: Attributes
    output: Attributes
    sizes: Attributes
    counted: Attributes
    request: Attributes
    attempts: Attributes
    cache: Attributes
    saved: Attributes


class AttributeSets:
    """All sets of attributes of one `Metrics`.

    Args:
        provider: The value of `gen_ai.provider.name`.
        tenants: How many tenants are shown by name; with 0 no metric tells of tenants.
    """

    def __init__(self, provider: str, tenants: int) -> None:
        self.provider = provider
        self.models = Names(_MOST_NAMES)
        # Kept apart, as a server may answer with any names, which must not use up those of the caller.
        self._answered = Names(_MOST_NAMES)
        self.budgets = Names(_MOST_NAMES)
        self.tenants = Names(tenants) if tenants else None
        self._calls: dict[CallKey, CallAttributes] = {}
        self._others: dict[tuple[object, ...], Attributes] = {}

    def tenant_of(self, tags: Mapping[str, str]) -> str | None:
        """Return what the tenant of a call shows as, None where it shows not at all."""
        if self.tenants is None:
            return None
        tenant = tags.get("tenant")
        return None if tenant is None else self.tenants.of(tenant)

    def of_call(self, key: CallKey) -> CallAttributes:
        """Return the attributes of a call."""
        found = self._calls.get(key)
        if found is None:
            asked, answered_by = key[2:4]
            if answered_by and answered_by != asked and told_name(answered_by) is None:
                return self.of_call((*key[:3], _OTHER, *key[4:]))  # what is no name is not kept either
            if len(self._calls) >= _MOST_SETS:
                self._calls.clear()
            found = self._calls[key] = self._describe(key)
        return found

    def of_attempt(self, model: str, kind: str, outcome: str, error: str | None) -> Attributes:
        """Return the attributes of one attempt."""
        key = (model, kind, outcome, error)
        return self._others.get(key) or self._keep(
            key,
            {
                names.PROVIDER_NAME: self.provider,
                names.ATTEMPT_MODEL: self.models.of(model),
                names.ATTEMPT_KIND: kind,
                names.ATTEMPT_OUTCOME: outcome,
                names.ERROR_TYPE: error,
            },
        )

    def of_cost(self, kind: str, asked: str, model: str, tenant: str | None, *, used: bool) -> Attributes:
        """Return the attributes of what one request cost."""
        shared = {
            names.OPERATION_NAME: names.OPERATION_NAMES[kind],
            names.PROVIDER_NAME: self.provider,
            names.REQUEST_MODEL: self.models.of(asked),
            names.RESPONSE_MODEL: self.models.of(model),
            names.COST_DISPOSITION: "delivered" if used else "wasted",
        }
        return shared if tenant is None else shared | {names.TENANT: tenant}

    def of_active(self, kind: str, model: str) -> Attributes:
        """Return the attributes of calls under way."""
        key = ("active", kind, model)
        return self._others.get(key) or self._keep(
            key,
            {
                names.OPERATION_NAME: names.OPERATION_NAMES[kind],
                names.PROVIDER_NAME: self.provider,
                names.REQUEST_MODEL: model,
            },
        )

    def _keep(self, key: tuple[object, ...], found: Mapping[str, str | int | None]) -> Attributes:
        if len(self._others) >= _MOST_SETS:
            self._others.clear()
        known = self._others[key] = {name: value for name, value in found.items() if value is not None}
        return known

    def _shown(self, asked: str, answered_by: str) -> str:
        known = answered_by == asked or answered_by in self.models
        return self.models.of(answered_by) if known else self._answered.of(answered_by)

    def _describe(self, key: CallKey) -> CallAttributes:
        kind, origin, model, answered_by, outcome, outcome_of_cache, error, tenant_name = key
        shared = {
            names.OPERATION_NAME: names.OPERATION_NAMES[kind],
            names.PROVIDER_NAME: self.provider,
            names.REQUEST_MODEL: self.models.of(model),
        }
        failed = {} if error is None else {names.ERROR_TYPE: error}
        cache = {} if outcome_of_cache == "off" else {names.CACHE_OUTCOME: outcome_of_cache}
        tenant = {} if tenant_name is None else {names.TENANT: tenant_name}
        server = {name: value for name, value in server_of(origin).items() if isinstance(value, str | int)}
        tokens: dict[str, str | int] = {**shared}
        if answered_by:
            tokens[names.RESPONSE_MODEL] = self._shown(model, answered_by)
        operation = {names.OPERATION_NAME: shared[names.OPERATION_NAME]}
        asked = operation | {names.REQUEST_MODEL: shared[names.REQUEST_MODEL]}
        return CallAttributes(
            client=tokens | server | failed,
            faultless=tokens | server,
            input=tokens | {names.TOKEN_TYPE: "input"},
            output=tokens | {names.TOKEN_TYPE: "output"},
            sizes=tokens | failed,
            counted=tokens | {names.TOKEN_MODALITY: "unknown"},
            request=shared | {names.OUTCOME: outcome} | cache | failed | tenant,
            attempts=asked | {names.OUTCOME: outcome},
            cache=operation | cache,
            saved=asked | tenant,
        )
