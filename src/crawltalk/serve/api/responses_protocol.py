"""The bodies of OpenAI's Responses API. An event's tag is its name; its data have the same name as `type`."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from crawltalk.serve.api.protocol import (
    AudioPart,
    Content,
    ContentLogprob,
    InputImagePart,
    JsonFormat,
    SamplingRequest,
    TextFormat,
)

ResponseId = Annotated[str, Meta(max_length=200)]
Status = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]


class InputItem(Struct, kw_only=True):
    """A message, a call of a function or its result. What a model reasoned earlier is taken and not read."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    """Of a message."""
    content: Content | None = None
    """Of a message."""
    call_id: str | None = None
    """Of a call, and of its result."""
    name: str | None = None
    """Of a call: the function."""
    arguments: str | None = None
    """Of a call: a JSON object."""
    output: Content | None = None
    """Of a result."""


class FunctionTool(Struct, kw_only=True):
    """A function that the model may call. Tools of other types are left out and named: nothing here runs them."""

    type: str = "function"
    name: Annotated[str, Meta(max_length=200)] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of its arguments."""
    strict: bool | None = None
    """Arguments obey the schema only where a call must be made."""


class FunctionChoice(Struct, kw_only=True, tag_field="type", tag="function"):
    """The choice of one function, which must be called."""

    name: str


class AllowedTool(Struct, kw_only=True):
    """A function by its name."""

    name: str | None = None


class AllowedChoice(Struct, kw_only=True, tag_field="type", tag="allowed_tools"):
    """The choice of some of the functions."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[AllowedTool], Meta(max_length=128)]


class JsonSchemaFormat(Struct, kw_only=True, tag_field="type", tag="json_schema"):
    """A reply that obeys a JSON schema."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    """A reply obeys the schema either way."""


class TextConfig(Struct, kw_only=True):
    """The form of a reply."""

    format: TextFormat | JsonFormat | JsonSchemaFormat | None = None


ToolChoice = Literal["none", "auto", "required"] | FunctionChoice | AllowedChoice
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class ResponsesRequest(SamplingRequest, kw_only=True):
    """POST /v1/responses. What a model thinks is part of its text: `reasoning` is named as not read."""

    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=2000)]
    instructions: str | None = None
    """A system message in front of all. Those of the previous response do not count."""
    previous_response_id: ResponseId | None = None
    """The conversation that this one continues."""
    store: bool | None = None
    """Whether the response can be asked for and continued later. Absent: yes."""
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    text: TextConfig | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    """auto: the oldest messages of what is too long are left out, and counted. Absent or disabled: it is refused."""
    include: Annotated[list[str], Meta(max_length=100)] | None = None
    """`message.output_text.logprobs`: the log-probabilities of a text's tokens. Others are named as not read."""
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: Metadata | None = None
    """Comes back with the response."""
    background: bool | None = None
    """The response is made while nobody waits for it: it comes at once, in progress, and can be asked for later."""
    conversation: Any = None
    """Refused, as is the next one."""
    prompt: Any = None


class OutputText(Struct, kw_only=True, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[ContentLogprob] = []


class OutputMessage(Struct, kw_only=True, tag_field="type", tag="message"):
    """A text that the model wrote."""

    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class OutputCall(Struct, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the model wrote."""

    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputCall


class InputTokensDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct):
    reasoning_tokens: int = 0


class ResponseUsage(Struct, kw_only=True):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(Struct):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFailure(Struct):
    """Why a response failed."""

    code: str
    message: str


class ModelResponse(Struct, kw_only=True):
    """A response, whole or as far as it is."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    """Why it is incomplete: it reached `max_output_tokens`, or the end of the context."""
    model: str
    instructions: str | None
    previous_response_id: str | None
    output: list[OutputItem]
    usage: ResponseUsage | None = None
    tools: list[FunctionTool]
    """Those that were offered: no others than functions."""
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    text: TextConfig
    max_output_tokens: int | None
    temperature: float
    top_p: float
    truncation: Literal["auto", "disabled"]
    store: bool
    background: bool = False
    metadata: dict[str, str]
    dropped_messages: int | UnsetType = UNSET
    """Ours: how many of the oldest messages were left out because they do not fit into the context."""


class InputText(Struct, kw_only=True, tag_field="type", tag="input_text"):
    """A text that the model read."""

    text: str


ReadPart = InputText | OutputText | InputImagePart | AudioPart


class ReadMessage(Struct, kw_only=True, tag_field="type", tag="message"):
    """A message that the model read."""

    id: str
    role: Literal["user", "assistant", "system"]
    status: Literal["completed"] = "completed"
    content: list[ReadPart]


class CallOutput(Struct, kw_only=True, tag_field="type", tag="function_call_output"):
    """The result of a call."""

    id: str
    call_id: str
    output: str
    status: Literal["completed"] = "completed"


ReadItem = ReadMessage | OutputCall | CallOutput


class InputItems(Struct, kw_only=True):
    """What a response was made from, a page of it: the earlier responses' items, too, if it continues one."""

    object: Literal["list"] = "list"
    data: list[ReadItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(Struct, kw_only=True):
    """The response to DELETE /v1/responses/{id}."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class StreamEvent(Struct, kw_only=True, tag_field="type"):
    """An event of a stream."""

    sequence_number: int = 0


class LifecycleEvent(StreamEvent, kw_only=True):
    """The response as far as it is."""

    response: ModelResponse


class Created(LifecycleEvent, tag="response.created"):
    pass


class InProgress(LifecycleEvent, tag="response.in_progress"):
    pass


class Completed(LifecycleEvent, tag="response.completed"):
    pass


class Incomplete(LifecycleEvent, tag="response.incomplete"):
    pass


class Failed(LifecycleEvent, tag="response.failed"):
    pass


class ItemAdded(StreamEvent, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(ItemAdded, kw_only=True, tag="response.output_item.done"):
    pass


class ItemEvent(StreamEvent, kw_only=True):
    """An event of an item of the output."""

    item_id: str
    output_index: int


class PartEvent(ItemEvent, kw_only=True):
    """An event of a message's one part."""

    content_index: int = 0


class PartAdded(PartEvent, kw_only=True, tag="response.content_part.added"):
    part: OutputText


class PartDone(PartAdded, kw_only=True, tag="response.content_part.done"):
    pass


class OutputTextDelta(PartEvent, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: list[ContentLogprob]


class OutputTextDone(PartEvent, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: list[ContentLogprob]


class ArgumentsDelta(ItemEvent, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(ItemEvent, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


ResponseEvent = (
    Created
    | InProgress
    | ItemAdded
    | PartAdded
    | OutputTextDelta
    | OutputTextDone
    | PartDone
    | ArgumentsDelta
    | ArgumentsDone
    | ItemDone
    | Completed
    | Incomplete
    | Failed
)
