"""A production client for DeepInfra's language, embedding and image models.

Every call travels through one pipeline of middleware: retry, circuit breaker, caching, tracing, logging, cost accounting,
routing, limits, deadlines. `AsyncClient` and `Client` are the front doors; `Pipeline` builds any stack of your own.

Names are imported when they are first used, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_ai._version import (
        __version__,
    )
    from resilient_ai.blocking import (
        Client,
    )
    from resilient_ai.blocking_views import (
        BlockingCache,
        BlockingCatalogue,
        BlockingCosts,
        BlockingLedger,
        BlockingStream,
    )
    from resilient_ai.caching import (
        ClientCache,
    )
    from resilient_ai.client import (
        AsyncClient,
    )
    from resilient_ai.core.budgets import (
        BudgetBook,
    )
    from resilient_ai.core.cache_control import (
        CacheControl,
    )
    from resilient_ai.core.cache_stats import (
        CacheStats,
    )
    from resilient_ai.core.call import (
        Call,
        CallRecord,
        Listener,
        Middleware,
        Next,
        OperationMiddleware,
    )
    from resilient_ai.core.clock import (
        Clock,
    )
    from resilient_ai.core.deltas import (
        Finished,
        ReasoningDelta,
        Restarted,
        StreamEvent,
        TextDelta,
        ToolCallDelta,
    )
    from resilient_ai.core.errors import (
        AttemptTimeout,
        AuthenticationFailed,
        BadRequest,
        BookUnavailable,
        BudgetExceeded,
        BudgetUnavailable,
        CallRejected,
        CircuitOpen,
        ClientClosed,
        ConfigurationError,
        ConnectionFailed,
        ContextLengthExceeded,
        DeadlineExceeded,
        FeatureNotSupported,
        InsufficientBalance,
        InvalidInput,
        InvalidResponse,
        LimitReached,
        ModelNotFound,
        ModelUnfit,
        NoModelAvailable,
        OutputInvalid,
        Overloaded,
        PermissionDenied,
        PriceUnknown,
        ProviderError,
        RateLimited,
        RequestTooLarge,
        ResilientAIError,
        ServerFailed,
        StatusError,
        StreamInterrupted,
        StreamMisused,
        ToolLoopUnfinished,
    )
    from resilient_ai.core.events import (
        BatchDone,
        BudgetRefused,
        BudgetThresholdReached,
        CacheLookedUp,
        CacheRefreshed,
        CallJoined,
        CircuitClosed,
        CircuitHalfOpened,
        CircuitOpened,
        Event,
        HedgeSent,
        HedgeSettled,
        KeyRefused,
        LimitChanged,
        ModelSkipped,
        PermitGranted,
        PriceDrifted,
        RetryScheduled,
        RetrySuppressed,
        SendSettled,
        SendStarted,
        StreamResumed,
    )
    from resilient_ai.core.health import (
        BreakerState,
        BudgetState,
        Health,
        LimitState,
        PriceState,
        RateState,
        SendBudgetState,
        StoreState,
    )
    from resilient_ai.core.ledger import (
        CallSpared,
        CostBook,
        CostLedger,
        Ledger,
        LedgerCall,
        LedgerRow,
        LedgerSend,
        LedgerTotal,
        SavedTotal,
        Savings,
        SendClosed,
        SendOpened,
        WhichSend,
    )
    from resilient_ai.core.messages import (
        AnyMessage,
        AssistantMessage,
        AudioPart,
        ImagePart,
        SystemMessage,
        TextPart,
        Tool,
        ToolCall,
        ToolMessage,
        UserMessage,
        assistant,
        system,
        user,
    )
    from resilient_ai.core.operations import (
        Chat,
        Complete,
        Embed,
        Image,
        Operation,
        ResponseFormat,
        Stream,
    )
    from resilient_ai.core.options import (
        ChatOptions,
        CompleteOptions,
        EmbedOptions,
        ImageOptions,
        StreamOptions,
    )
    from resilient_ai.core.pipeline import (
        Description,
        Pipeline,
        Provider,
        WorstCase,
    )
    from resilient_ai.core.protocols import (
        Abilities,
        CacheStore,
        Fleet,
        Leases,
        PriceBook,
        StoreUsage,
    )
    from resilient_ai.core.results import (
        ChatResult,
        Choice,
        Considered,
        Cost,
        EmbedResult,
        ImageResult,
        SoFar,
        StructuredResult,
        TokenLogprob,
        Usage,
    )
    from resilient_ai.core.streams import (
        StreamEnd,
        StreamResult,
        when_done,
    )
    from resilient_ai.core.vectors import (
        Vectors,
    )
    from resilient_ai.costs import (
        ClientCosts,
    )
    from resilient_ai.deepinfra.catalogue import (
        CatalogueChanges,
        ClientCatalogue,
        LiveCatalogue,
        ModelInfo,
        ModelQuery,
        RetiredModelWarning,
        catalogue,
    )
    from resilient_ai.deepinfra.provider import (
        DeepInfraProvider,
    )
    from resilient_ai.middleware.budget import (
        Budget,
    )
    from resilient_ai.middleware.redactor import (
        Redactor,
    )
    from resilient_ai.middleware.routing import (
        Routing,
        Rule,
    )
    from resilient_ai.presets import (
        ResilientAIWarning,
        default_stack,
    )
    from resilient_ai.settings import (
        Settings,
    )
    from resilient_ai.tool_loop import (
        ToolRun,
        ToolStep,
    )

_HOMES = {
    "resilient_ai._version": "__version__",
    "resilient_ai.blocking": "Client",
    "resilient_ai.blocking_views": "BlockingCache BlockingCatalogue BlockingCosts BlockingLedger BlockingStream",
    "resilient_ai.caching": "ClientCache",
    "resilient_ai.client": "AsyncClient",
    "resilient_ai.core.budgets": "BudgetBook",
    "resilient_ai.core.cache_control": "CacheControl",
    "resilient_ai.core.cache_stats": "CacheStats",
    "resilient_ai.core.call": "Call CallRecord Listener Middleware Next OperationMiddleware",
    "resilient_ai.core.clock": "Clock",
    "resilient_ai.core.deltas": "Finished ReasoningDelta Restarted StreamEvent TextDelta ToolCallDelta",
    "resilient_ai.core.errors": (
        "AttemptTimeout AuthenticationFailed BadRequest BookUnavailable BudgetExceeded BudgetUnavailable CallRejected "
        "CircuitOpen ClientClosed ConfigurationError ConnectionFailed ContextLengthExceeded DeadlineExceeded FeatureNotSupported "
        "InsufficientBalance InvalidInput InvalidResponse LimitReached ModelNotFound ModelUnfit NoModelAvailable "
        "OutputInvalid Overloaded PermissionDenied PriceUnknown ProviderError RateLimited RequestTooLarge "
        "ResilientAIError ServerFailed StatusError StreamInterrupted StreamMisused ToolLoopUnfinished"
    ),
    "resilient_ai.core.events": (
        "BatchDone BudgetRefused BudgetThresholdReached CacheLookedUp CacheRefreshed CallJoined CircuitClosed "
        "CircuitHalfOpened CircuitOpened Event HedgeSent HedgeSettled KeyRefused LimitChanged ModelSkipped PermitGranted "
        "PriceDrifted "
        "RetryScheduled RetrySuppressed SendSettled SendStarted StreamResumed"
    ),
    "resilient_ai.core.health": "BreakerState BudgetState Health LimitState PriceState RateState SendBudgetState StoreState",
    "resilient_ai.core.ledger": (
        "CallSpared CostBook CostLedger Ledger LedgerCall LedgerRow LedgerSend LedgerTotal SavedTotal Savings "
        "SendClosed SendOpened WhichSend"
    ),
    "resilient_ai.core.messages": (
        "AnyMessage AssistantMessage AudioPart ImagePart SystemMessage TextPart Tool ToolCall ToolMessage UserMessage "
        "assistant system user"
    ),
    "resilient_ai.core.operations": "Chat Complete Embed Image Operation ResponseFormat Stream",
    "resilient_ai.core.options": "ChatOptions CompleteOptions EmbedOptions ImageOptions StreamOptions",
    "resilient_ai.core.pipeline": "Description Pipeline Provider WorstCase",
    "resilient_ai.core.protocols": "Abilities CacheStore Fleet Leases PriceBook StoreUsage",
    "resilient_ai.core.results": (
        "ChatResult Choice Considered Cost EmbedResult ImageResult SoFar StructuredResult TokenLogprob Usage"
    ),
    "resilient_ai.core.streams": "StreamEnd StreamResult when_done",
    "resilient_ai.core.vectors": "Vectors",
    "resilient_ai.costs": "ClientCosts",
    "resilient_ai.deepinfra.catalogue": (
        "CatalogueChanges ClientCatalogue LiveCatalogue ModelInfo ModelQuery RetiredModelWarning catalogue"
    ),
    "resilient_ai.deepinfra.provider": "DeepInfraProvider",
    "resilient_ai.middleware.budget": "Budget",
    "resilient_ai.middleware.redactor": "Redactor",
    "resilient_ai.middleware.routing": "Routing Rule",
    "resilient_ai.presets": "ResilientAIWarning default_stack",
    "resilient_ai.settings": "Settings",
    "resilient_ai.tool_loop": "ToolRun ToolStep",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


__all__ = [
    "Abilities",
    "AnyMessage",
    "AssistantMessage",
    "AsyncClient",
    "AttemptTimeout",
    "AudioPart",
    "AuthenticationFailed",
    "BadRequest",
    "BatchDone",
    "BlockingCache",
    "BlockingCatalogue",
    "BlockingCosts",
    "BlockingLedger",
    "BlockingStream",
    "BookUnavailable",
    "BreakerState",
    "Budget",
    "BudgetBook",
    "BudgetExceeded",
    "BudgetRefused",
    "BudgetState",
    "BudgetThresholdReached",
    "BudgetUnavailable",
    "CacheControl",
    "CacheLookedUp",
    "CacheRefreshed",
    "CacheStats",
    "CacheStore",
    "Call",
    "CallJoined",
    "CallRecord",
    "CallRejected",
    "CallSpared",
    "CatalogueChanges",
    "Chat",
    "ChatOptions",
    "ChatResult",
    "Choice",
    "CircuitClosed",
    "CircuitHalfOpened",
    "CircuitOpen",
    "CircuitOpened",
    "Client",
    "ClientCache",
    "ClientCatalogue",
    "ClientClosed",
    "ClientCosts",
    "Clock",
    "Complete",
    "CompleteOptions",
    "ConfigurationError",
    "ConnectionFailed",
    "Considered",
    "ContextLengthExceeded",
    "Cost",
    "CostBook",
    "CostLedger",
    "DeadlineExceeded",
    "DeepInfraProvider",
    "Description",
    "Embed",
    "EmbedOptions",
    "EmbedResult",
    "Event",
    "FeatureNotSupported",
    "Finished",
    "Fleet",
    "Health",
    "HedgeSent",
    "HedgeSettled",
    "Image",
    "ImageOptions",
    "ImagePart",
    "ImageResult",
    "InsufficientBalance",
    "InvalidInput",
    "InvalidResponse",
    "KeyRefused",
    "Leases",
    "Ledger",
    "LedgerCall",
    "LedgerRow",
    "LedgerSend",
    "LedgerTotal",
    "LimitChanged",
    "LimitReached",
    "LimitState",
    "Listener",
    "LiveCatalogue",
    "Middleware",
    "ModelInfo",
    "ModelNotFound",
    "ModelQuery",
    "ModelSkipped",
    "ModelUnfit",
    "Next",
    "NoModelAvailable",
    "Operation",
    "OperationMiddleware",
    "OutputInvalid",
    "Overloaded",
    "PermissionDenied",
    "PermitGranted",
    "Pipeline",
    "PriceBook",
    "PriceDrifted",
    "PriceState",
    "PriceUnknown",
    "Provider",
    "ProviderError",
    "RateLimited",
    "RateState",
    "ReasoningDelta",
    "Redactor",
    "RequestTooLarge",
    "ResilientAIError",
    "ResilientAIWarning",
    "ResponseFormat",
    "Restarted",
    "RetiredModelWarning",
    "RetryScheduled",
    "RetrySuppressed",
    "Routing",
    "Rule",
    "SavedTotal",
    "Savings",
    "SendBudgetState",
    "SendClosed",
    "SendOpened",
    "SendSettled",
    "SendStarted",
    "ServerFailed",
    "Settings",
    "SoFar",
    "StatusError",
    "StoreState",
    "StoreUsage",
    "Stream",
    "StreamEnd",
    "StreamEvent",
    "StreamInterrupted",
    "StreamMisused",
    "StreamOptions",
    "StreamResult",
    "StreamResumed",
    "StructuredResult",
    "SystemMessage",
    "TextDelta",
    "TextPart",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolLoopUnfinished",
    "ToolMessage",
    "ToolRun",
    "ToolStep",
    "Usage",
    "UserMessage",
    "Vectors",
    "WhichSend",
    "WorstCase",
    "__version__",
    "assistant",
    "catalogue",
    "default_stack",
    "system",
    "user",
    "when_done",
]
