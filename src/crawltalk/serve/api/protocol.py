"""The bodies of requests and responses: OpenAI's, and our additions, which say "Ours".

A field that is not here is ignored, and named in the response's header `x-crawltalk-ignored` and in the log, as
vLLM does in its log: clients send what other servers understand. Refused are only those of `REFUSED`: by them a
client relies on the form of the reply.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

ModelName = Annotated[str, Meta(max_length=1000)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
ChoiceCount = Annotated[int, Meta(ge=1, le=128)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopString = Annotated[str, Meta(max_length=1000)]
MaxTokens = Annotated[int, Meta(ge=-1)]
FinishReason = Literal["stop", "length", "tool_calls"]


_AS_RESPONSE_FORMAT = 'response_format {"type": "json_schema", "json_schema": {"schema": ...}}'
REFUSED = {
    **dict.fromkeys(("guided_json", "json_schema"), _AS_RESPONSE_FORMAT),
    **dict.fromkeys(
        ("guided_choice", "guided_grammar", "guided_regex", "structured_outputs", "grammar", "regex", "ebnf"),
        f"a JSON schema in {_AS_RESPONSE_FORMAT}, which may have enum or pattern",
    ),
}
"""Fields of vLLM, SGLang and llama.cpp that promise a form of the reply -> what to send instead. An empty value
promises nothing.
"""


class StreamOptions(Struct, kw_only=True):
    """How to stream."""

    include_usage: bool | None = None
    """A last chunk with the usage and no choice."""


class SamplingRequest(Struct, kw_only=True):
    """How tokens are drawn, in every API. `null` is the default."""

    model: ModelName
    stream: bool | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    """Absent: a new one for each request."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """0: the likeliest token."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1000)] | None
    ) = None
    top_k: Annotated[int, Meta(ge=-1, lt=2**31)] | None = None
    """Ours. 0 or -1: all tokens."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Ours."""
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    """Ours."""


class GenerationRequest(SamplingRequest, kw_only=True):
    """Settings of a generation. `null` is the default."""

    n: ChoiceCount | None = None
    """With several prompts, no more than 2,048 choices in all."""
    stream_options: StreamOptions | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=16)] | None = None
    """An empty one stops nothing. A call that must be made is not cut by them."""
    return_token_ids: bool | None = None
    """As in vLLM: the ids of the prompt's tokens and of each choice's, without the one that ended it."""
    trace: bool | None = None
    """Ours: where each choice's text occurs in the training data."""


class PromptTokensDetails(Struct):
    cached_tokens: int
    """Tokens of the prompt that were in the cache and not computed again."""


class Usage(Struct):
    """The tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TextPart(Struct, tag_field="type", tag="text"):
    """A text in a message."""

    text: str


class InputTextPart(TextPart, tag_field="type", tag="input_text"):
    """The same as the Responses API names it in what a user says."""


class OutputTextPart(TextPart, tag_field="type", tag="output_text"):
    """The same as the Responses API names it in what a model said."""


class ImageUrl(Struct):
    url: str
    """`data:image/png;base64,...`; nothing is fetched."""
    detail: str | None = None


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """An image, which is refused unless the model reads images."""

    image_url: ImageUrl | str | None = None


class InputImagePart(ImagePart, tag_field="type", tag="input_image"):
    """The same as the Responses API names it: the address stands for itself."""

    detail: str | None = None


class InputAudio(Struct):
    data: str
    """A file in base64."""
    format: str
    """wav."""


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """A sound, which is refused unless the model reads sounds."""

    input_audio: InputAudio | None = None


class FilePart(Struct, tag_field="type", tag="file"):
    """A file, which is refused: models here read text."""


class InputFilePart(Struct, tag_field="type", tag="input_file"):
    """The same as the Responses API names it."""


class VideoPart(Struct, tag_field="type", tag="video_url"):
    """A film, which is refused: models here read text."""


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    """The assistant's refusal in an earlier turn."""

    refusal: str


ContentPart = (
    TextPart
    | InputTextPart
    | OutputTextPart
    | RefusalPart
    | ImagePart
    | InputImagePart
    | AudioPart
    | FilePart
    | InputFilePart
    | VideoPart
)
Content = str | list[str | ContentPart]
"""A text, or parts of it."""


class SystemMessage(Struct, kw_only=True, tag_field="role", tag="system"):
    """Instructions for the assistant."""

    content: Content


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer"):
    """OpenAI's newer name of the system message."""


class UserMessage(Struct, kw_only=True, tag_field="role", tag="user"):
    """A message of the user."""

    content: Content


class Call(Struct, kw_only=True):
    """A function's name and its arguments: JSON text, or, from clients, the object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(Struct, kw_only=True):
    """A call of a tool by the assistant."""

    id: str | None = None
    function: Call
    type: Literal["function"] = "function"
    index: int | UnsetType = UNSET
    """The number of the call in its reply; only in a stream."""


class AssistantMessage(Struct, kw_only=True, tag_field="role", tag="assistant"):
    """An earlier reply of the assistant."""

    content: Content | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    function_call: Call | None = None
    """OpenAI's older form of one call."""


class ToolMessage(Struct, kw_only=True, tag_field="role", tag="tool"):
    """The result of a tool call. `null`: it has none."""

    content: Content | None = None
    tool_call_id: str | None = None


class FunctionMessage(Struct, kw_only=True, tag_field="role", tag="function"):
    """OpenAI's older form of the result of a call."""

    content: Content | None = None


ChatMessage = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)


class Function(Struct, kw_only=True):
    """A function that the assistant may call."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of its arguments."""
    strict: bool | None = None


class Tool(Struct, kw_only=True):
    """A tool: a function. Tools of other types, such as OpenAI's "custom", are ignored: their input has no schema."""

    type: str = "function"
    function: Function | None = None


class ToolName(Struct):
    name: str


class ToolReference(Struct, kw_only=True):
    """A function by its name."""

    function: ToolName | None = None


class NamedTool(Struct, kw_only=True, tag_field="type", tag="function"):
    """The choice of one function, which must be called."""

    function: ToolName


class AllowedTools(Struct, kw_only=True):
    """Some of the functions; the others may not be called."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ToolReference], Meta(max_length=128)]


class AllowedToolsChoice(Struct, kw_only=True, tag_field="type", tag="allowed_tools"):
    """The choice of some of the functions."""

    allowed_tools: AllowedTools


class TextFormat(Struct, tag_field="type", tag="text"):
    """A reply of any form."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """A reply that is a JSON object."""

    schema: dict[str, Any] | None = None
    """Its JSON schema, as llama.cpp takes it."""


class JsonSchema(Struct, kw_only=True):
    """A JSON schema."""

    schema: dict[str, Any] | None = None
    """None: any JSON value."""
    name: str | None = None
    strict: bool | None = None
    """A reply obeys the schema either way."""


class SchemaFormat(Struct, kw_only=True, tag_field="type", tag="json_schema"):
    """A reply that obeys a JSON schema."""

    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    """The schema itself, as some clients send it."""


class ChatRequest(GenerationRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=2000)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    """The newer name of `max_tokens`. Absent: the server's default (`serve --max-tokens`); without one, or with
    -1, as many as the context has room for.
    """
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required", "any"] | NamedTool | AllowedToolsChoice | None = None
    """"any" is another name of "required"."""
    parallel_tool_calls: bool | None = None


class TokenLogprob(Struct):
    """A token, its log-probability and its bytes: it need not be whole characters."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TokenLogprob):
    """A token, with the likeliest tokens at its position."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Struct):
    """The log-probabilities of a reply's tokens."""

    content: list[ContentLogprob]


class ReplyMessage(Struct, kw_only=True):
    """The assistant's reply."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One of the replies."""

    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    token_ids: list[int] | UnsetType = UNSET
    trace: list[dict[str, Any]] | UnsetType = UNSET


class ChatCompletion(Struct, kw_only=True):
    """The response to a ChatRequest."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | UnsetType = UNSET
    dropped_messages: int | UnsetType = UNSET
    """Ours: how many of the oldest messages were left out because they do not fit into the context."""


class Delta(Struct, kw_only=True):
    """The new part of a reply."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    """The new part of one of the replies."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: list[int] | UnsetType = UNSET
    trace: list[dict[str, Any]] | UnsetType = UNSET


class ChatCompletionChunk(Struct, kw_only=True):
    """A part of the response, in a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    """Only if the request asks for it: then it is null in all chunks but the last."""
    prompt_token_ids: list[int] | UnsetType = UNSET
    """In the first chunk."""
    dropped_messages: int | UnsetType = UNSET


class CompletionRequest(GenerationRequest, kw_only=True):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1, max_length=2**20)]
    """A text, texts, the ids of tokens, or lists of ids; 2,048 texts or lists at most. A text becomes the ids that
    `transformers` makes of it with the model's folder: names of control tokens in it are such, and nothing is put
    in front.
    """
    new_document: bool | None = None
    """Ours: whether the token that separates documents comes before a text. An empty text always gets it."""
    max_tokens: MaxTokens | None = None
    """16 if absent. 0 is allowed with `echo` only. -1: as many as the context has room for."""
    echo: bool | None = None
    """Whether the prompt comes before the reply."""
    logprobs: bool | Annotated[int, Meta(ge=0, le=100)] | None = None
    """true: 1."""
    suffix: str | None = None
    """Refused: models here write from left to right."""
    best_of: ChoiceCount | None = None
    """Must equal `n`."""


class CompletionLogprobs(Struct):
    """The log-probabilities of a text's tokens. Each list has one item for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """How many characters of the text come before the token."""


class CompletionChoice(Struct, kw_only=True):
    """One of the texts, or in a stream the new part of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    """In a stream, in the choice's first part."""
    trace: list[dict[str, Any]] | UnsetType = UNSET


class Completion(Struct, kw_only=True):
    """The response to a CompletionRequest, or in a stream a part of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    """In a stream only if the request asks for it."""


class ModelCard(Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "crawltalk"
    context_length: int
    """Ours: the most tokens of prompt and reply together."""
    chat: bool
    """Ours: whether the model has a chat format."""
    reads: list[str]
    """Ours: what parts of a message the model reads beside text: image_url, input_audio."""
    trace: bool
    """Ours: whether requests may set `trace`."""


class ModelList(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class EmbeddingRequest(Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: ModelName
    input: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1, max_length=2**20)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    """Only the first so many numbers, scaled to length 1 again."""


class Embedding(Struct, kw_only=True):
    """The mean of a text's final hidden states, scaled to length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """Numbers, or 32-bit little-endian floats in base64."""


class EmbeddingUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """The embeddings, one for each text."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class TokenizeRequest(Struct, kw_only=True):
    """POST /tokenize: a text, or a conversation with the assistant's turn opened."""

    model: ModelName
    text: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=2000)] | None = None


class TokenizeResponse(Struct):
    ids: list[int]
    pieces: list[str]
    """The text of each token; bytes that are no whole characters are U+FFFD."""
    count: int


class DetokenizeRequest(Struct, kw_only=True):
    """POST /detokenize."""

    model: ModelName
    ids: Annotated[list[TokenId], Meta(max_length=2**20)]


class DetokenizeResponse(Struct):
    text: str


class Health(Struct):
    status: Literal["serving"] = "serving"
