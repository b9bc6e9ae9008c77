"""A production client for DeepInfra's language, embedding and image models.

Every call travels through one pipeline of middleware: retry, circuit breaker, caching, tracing, logging, cost accounting,
routing, limits, deadlines. `AsyncClient` and `Client` are the front doors; `Pipeline` builds any stack of your own.

Names are imported when they are first used, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_ai._version import (
        __version__ as __version__,
    )
    from resilient_ai.blocking import (
        BlockingStream as BlockingStream,
    )
    from resilient_ai.blocking import (
        Client as Client,
    )
    from resilient_ai.client import (
        AsyncClient as AsyncClient,
    )
    from resilient_ai.core.call import (
        Call as Call,
    )
    from resilient_ai.core.call import (
        Middleware as Middleware,
    )
    from resilient_ai.core.call import (
        Next as Next,
    )
    from resilient_ai.core.call import (
        OperationMiddleware as OperationMiddleware,
    )
    from resilient_ai.core.deltas import (
        Finished as Finished,
    )
    from resilient_ai.core.deltas import (
        ReasoningDelta as ReasoningDelta,
    )
    from resilient_ai.core.deltas import (
        StreamEvent as StreamEvent,
    )
    from resilient_ai.core.deltas import (
        TextDelta as TextDelta,
    )
    from resilient_ai.core.deltas import (
        ToolCallDelta as ToolCallDelta,
    )
    from resilient_ai.core.errors import (
        AttemptTimeout as AttemptTimeout,
    )
    from resilient_ai.core.errors import (
        AuthenticationFailed as AuthenticationFailed,
    )
    from resilient_ai.core.errors import (
        BadRequest as BadRequest,
    )
    from resilient_ai.core.errors import (
        BudgetExceeded as BudgetExceeded,
    )
    from resilient_ai.core.errors import (
        CallRejected as CallRejected,
    )
    from resilient_ai.core.errors import (
        CircuitOpen as CircuitOpen,
    )
    from resilient_ai.core.errors import (
        ConfigurationError as ConfigurationError,
    )
    from resilient_ai.core.errors import (
        ConnectionFailed as ConnectionFailed,
    )
    from resilient_ai.core.errors import (
        ContextLengthExceeded as ContextLengthExceeded,
    )
    from resilient_ai.core.errors import (
        DeadlineExceeded as DeadlineExceeded,
    )
    from resilient_ai.core.errors import (
        FeatureNotSupported as FeatureNotSupported,
    )
    from resilient_ai.core.errors import (
        InsufficientBalance as InsufficientBalance,
    )
    from resilient_ai.core.errors import (
        InvalidInput as InvalidInput,
    )
    from resilient_ai.core.errors import (
        InvalidResponse as InvalidResponse,
    )
    from resilient_ai.core.errors import (
        LimitReached as LimitReached,
    )
    from resilient_ai.core.errors import (
        ModelNotFound as ModelNotFound,
    )
    from resilient_ai.core.errors import (
        NoModelAvailable as NoModelAvailable,
    )
    from resilient_ai.core.errors import (
        OutputInvalid as OutputInvalid,
    )
    from resilient_ai.core.errors import (
        Overloaded as Overloaded,
    )
    from resilient_ai.core.errors import (
        PermissionDenied as PermissionDenied,
    )
    from resilient_ai.core.errors import (
        ProviderError as ProviderError,
    )
    from resilient_ai.core.errors import (
        RateLimited as RateLimited,
    )
    from resilient_ai.core.errors import (
        RequestTooLarge as RequestTooLarge,
    )
    from resilient_ai.core.errors import (
        ResilientAIError as ResilientAIError,
    )
    from resilient_ai.core.errors import (
        ServerFailed as ServerFailed,
    )
    from resilient_ai.core.errors import (
        StatusError as StatusError,
    )
    from resilient_ai.core.errors import (
        StreamInterrupted as StreamInterrupted,
    )
    from resilient_ai.core.errors import (
        StreamMisused as StreamMisused,
    )
    from resilient_ai.core.errors import (
        ToolLoopUnfinished as ToolLoopUnfinished,
    )
    from resilient_ai.core.events import (
        BatchDone as BatchDone,
    )
    from resilient_ai.core.events import (
        CacheLookedUp as CacheLookedUp,
    )
    from resilient_ai.core.events import (
        CircuitClosed as CircuitClosed,
    )
    from resilient_ai.core.events import (
        CircuitHalfOpened as CircuitHalfOpened,
    )
    from resilient_ai.core.events import (
        CircuitOpened as CircuitOpened,
    )
    from resilient_ai.core.events import (
        Event as Event,
    )
    from resilient_ai.core.events import (
        ModelSkipped as ModelSkipped,
    )
    from resilient_ai.core.events import (
        PermitGranted as PermitGranted,
    )
    from resilient_ai.core.events import (
        RetryScheduled as RetryScheduled,
    )
    from resilient_ai.core.events import (
        SendSettled as SendSettled,
    )
    from resilient_ai.core.events import (
        SendStarted as SendStarted,
    )
    from resilient_ai.core.messages import (
        AssistantMessage as AssistantMessage,
    )
    from resilient_ai.core.messages import (
        AudioPart as AudioPart,
    )
    from resilient_ai.core.messages import (
        ImagePart as ImagePart,
    )
    from resilient_ai.core.messages import (
        SystemMessage as SystemMessage,
    )
    from resilient_ai.core.messages import (
        TextPart as TextPart,
    )
    from resilient_ai.core.messages import (
        Tool as Tool,
    )
    from resilient_ai.core.messages import (
        ToolCall as ToolCall,
    )
    from resilient_ai.core.messages import (
        ToolMessage as ToolMessage,
    )
    from resilient_ai.core.messages import (
        UserMessage as UserMessage,
    )
    from resilient_ai.core.messages import (
        assistant as assistant,
    )
    from resilient_ai.core.messages import (
        system as system,
    )
    from resilient_ai.core.messages import (
        user as user,
    )
    from resilient_ai.core.operations import (
        Chat as Chat,
    )
    from resilient_ai.core.operations import (
        Complete as Complete,
    )
    from resilient_ai.core.operations import (
        Embed as Embed,
    )
    from resilient_ai.core.operations import (
        Image as Image,
    )
    from resilient_ai.core.operations import (
        Operation as Operation,
    )
    from resilient_ai.core.operations import (
        ResponseFormat as ResponseFormat,
    )
    from resilient_ai.core.operations import (
        Stream as Stream,
    )
    from resilient_ai.core.pipeline import (
        Pipeline as Pipeline,
    )
    from resilient_ai.core.results import (
        ChatResult as ChatResult,
    )
    from resilient_ai.core.results import (
        Choice as Choice,
    )
    from resilient_ai.core.results import (
        Cost as Cost,
    )
    from resilient_ai.core.results import (
        EmbedResult as EmbedResult,
    )
    from resilient_ai.core.results import (
        ImageResult as ImageResult,
    )
    from resilient_ai.core.results import (
        StructuredResult as StructuredResult,
    )
    from resilient_ai.core.results import (
        TokenLogprob as TokenLogprob,
    )
    from resilient_ai.core.results import (
        Usage as Usage,
    )
    from resilient_ai.core.streams import (
        StreamResult as StreamResult,
    )
    from resilient_ai.core.vectors import (
        Vectors as Vectors,
    )
    from resilient_ai.deepinfra.catalogue import (
        ModelInfo as ModelInfo,
    )
    from resilient_ai.deepinfra.catalogue import (
        RetiredModelWarning as RetiredModelWarning,
    )
    from resilient_ai.deepinfra.catalogue import (
        catalogue as catalogue,
    )
    from resilient_ai.deepinfra.provider import (
        DeepInfraProvider as DeepInfraProvider,
    )
    from resilient_ai.presets import (
        ResilientAIWarning as ResilientAIWarning,
    )
    from resilient_ai.presets import (
        default_stack as default_stack,
    )
    from resilient_ai.settings import (
        Settings as Settings,
    )
    from resilient_ai.tool_loop import (
        ToolRun as ToolRun,
    )
    from resilient_ai.tool_loop import (
        ToolStep as ToolStep,
    )

_HOMES = {
    "resilient_ai._version": ("__version__",),
    "resilient_ai.blocking": (
        "BlockingStream",
        "Client",
    ),
    "resilient_ai.client": ("AsyncClient",),
    "resilient_ai.core.call": (
        "Call",
        "Middleware",
        "Next",
        "OperationMiddleware",
    ),
    "resilient_ai.core.deltas": (
        "Finished",
        "ReasoningDelta",
        "StreamEvent",
        "TextDelta",
        "ToolCallDelta",
    ),
    "resilient_ai.core.errors": (
        "AttemptTimeout",
        "AuthenticationFailed",
        "BadRequest",
        "BudgetExceeded",
        "CallRejected",
        "CircuitOpen",
        "ConfigurationError",
        "ConnectionFailed",
        "ContextLengthExceeded",
        "DeadlineExceeded",
        "FeatureNotSupported",
        "InsufficientBalance",
        "InvalidInput",
        "InvalidResponse",
        "LimitReached",
        "ModelNotFound",
        "NoModelAvailable",
        "OutputInvalid",
        "Overloaded",
        "PermissionDenied",
        "ProviderError",
        "RateLimited",
        "RequestTooLarge",
        "ResilientAIError",
        "ServerFailed",
        "StatusError",
        "StreamInterrupted",
        "StreamMisused",
        "ToolLoopUnfinished",
    ),
    "resilient_ai.core.events": (
        "BatchDone",
        "CacheLookedUp",
        "CircuitClosed",
        "CircuitHalfOpened",
        "CircuitOpened",
        "Event",
        "ModelSkipped",
        "PermitGranted",
        "RetryScheduled",
        "SendSettled",
        "SendStarted",
    ),
    "resilient_ai.core.messages": (
        "AssistantMessage",
        "AudioPart",
        "ImagePart",
        "SystemMessage",
        "TextPart",
        "Tool",
        "ToolCall",
        "ToolMessage",
        "UserMessage",
        "assistant",
        "system",
        "user",
    ),
    "resilient_ai.core.operations": (
        "Chat",
        "Complete",
        "Embed",
        "Image",
        "Operation",
        "ResponseFormat",
        "Stream",
    ),
    "resilient_ai.core.pipeline": ("Pipeline",),
    "resilient_ai.core.results": (
        "ChatResult",
        "Choice",
        "Cost",
        "EmbedResult",
        "ImageResult",
        "StructuredResult",
        "TokenLogprob",
        "Usage",
    ),
    "resilient_ai.core.streams": ("StreamResult",),
    "resilient_ai.core.vectors": ("Vectors",),
    "resilient_ai.deepinfra.catalogue": (
        "ModelInfo",
        "RetiredModelWarning",
        "catalogue",
    ),
    "resilient_ai.deepinfra.provider": ("DeepInfraProvider",),
    "resilient_ai.presets": (
        "ResilientAIWarning",
        "default_stack",
    ),
    "resilient_ai.settings": ("Settings",),
    "resilient_ai.tool_loop": (
        "ToolRun",
        "ToolStep",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


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
    "AssistantMessage",
    "AsyncClient",
    "AttemptTimeout",
    "AudioPart",
    "AuthenticationFailed",
    "BadRequest",
    "BatchDone",
    "BlockingStream",
    "BudgetExceeded",
    "CacheLookedUp",
    "Call",
    "CallRejected",
    "Chat",
    "ChatResult",
    "Choice",
    "CircuitClosed",
    "CircuitHalfOpened",
    "CircuitOpen",
    "CircuitOpened",
    "Client",
    "Complete",
    "ConfigurationError",
    "ConnectionFailed",
    "ContextLengthExceeded",
    "Cost",
    "DeadlineExceeded",
    "DeepInfraProvider",
    "Embed",
    "EmbedResult",
    "Event",
    "FeatureNotSupported",
    "Finished",
    "Image",
    "ImagePart",
    "ImageResult",
    "InsufficientBalance",
    "InvalidInput",
    "InvalidResponse",
    "LimitReached",
    "Middleware",
    "ModelInfo",
    "ModelNotFound",
    "ModelSkipped",
    "Next",
    "NoModelAvailable",
    "Operation",
    "OperationMiddleware",
    "OutputInvalid",
    "Overloaded",
    "PermissionDenied",
    "PermitGranted",
    "Pipeline",
    "ProviderError",
    "RateLimited",
    "ReasoningDelta",
    "RequestTooLarge",
    "ResilientAIError",
    "ResilientAIWarning",
    "ResponseFormat",
    "RetiredModelWarning",
    "RetryScheduled",
    "SendSettled",
    "SendStarted",
    "ServerFailed",
    "Settings",
    "StatusError",
    "Stream",
    "StreamEvent",
    "StreamInterrupted",
    "StreamMisused",
    "StreamResult",
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
    "__version__",
    "assistant",
    "catalogue",
    "default_stack",
    "system",
    "user",
]
