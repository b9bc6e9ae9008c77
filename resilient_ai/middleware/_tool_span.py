"""The span of a function that the model asked for."""

from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from resilient_ai.core import semconv as names
from resilient_ai.core._told import told_name
from resilient_ai.core.messages import Tool, ToolCall
from resilient_ai.middleware._span_attributes import Attributes, add_error
from resilient_ai.middleware._span_content import ContentWriter
from resilient_ai.middleware._spans import Ending, let_go


class ToolSpan(Ending):
    """Stands around a function while it runs, and is current meanwhile.

    As a context it gives a function that is told what came of it: the output, or the error.
    """

    __slots__ = ("call", "content", "error", "output", "token")

    def __init__(self, content: ContentWriter | None, call: ToolCall, *ending: Any) -> None:
        super().__init__(*ending)
        self.content = content
        self.call = call
        self.token: Any = None
        self.output: str | None = None
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.token = self.otel.attach(self.otel.context_of(self.span, None))
        return self

    def __call__(self, output: str, error: BaseException | None, /) -> None:
        """Take note of what came of it."""
        self.output, self.error = output, error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        let_go(self.otel, self.token)
        self.error = error or self.error
        self.finish("success" if self.error is None else "error", self.output, self.error)

    @override
    def describe(self, outcome: str, about: str | None, error: BaseException | None) -> Attributes:
        found: Attributes = {}
        if error is not None:
            add_error(found, error)
        if self.content is not None and self.content.on_spans:
            found |= self.content.of_tool(self.call.arguments, about)
        return found


def tool_attributes(call: ToolCall, tool: Tool) -> Attributes:
    """Return what is known before the function runs."""
    found: Attributes = {
        names.OPERATION_NAME: names.EXECUTE_TOOL,
        names.TOOL_NAME: tool.name,
        names.TOOL_TYPE: "function",
    }
    told = told_name(call.id)  # a server may write anything there
    if told is not None:
        found[names.TOOL_CALL_ID] = told
    if tool.description:
        found[names.TOOL_DESCRIPTION] = tool.description
    return found
