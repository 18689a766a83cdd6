"""OpenAI's Responses API: POST /v1/responses; GET and DELETE /v1/responses/{id}; POST /v1/responses/{id}/cancel; GET
/v1/responses/{id}/input_items.

A request becomes one of chat (`begin_reply`), and the reply is written as items: messages and calls. A whole response
is the last state of its stream. One that is made in the background goes on in a task of its own.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Container, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from crawltalk.chat.messages import ToolCall
from crawltalk.engine.sequence import Token
from crawltalk.serve.api import protocol
from crawltalk.serve.api.chat import ChatReply, begin_reply, content_logprob, parts_of, text_of
from crawltalk.serve.api.errors import ApiError, as_api_error, bad_request, internal_error, invalid_body
from crawltalk.serve.api.generation import or_default
from crawltalk.serve.api.protocol import AssistantMessage, Call, ChatMessage, ChatRequest
from crawltalk.serve.api.responses_protocol import (
    AllowedChoice,
    ArgumentsDelta,
    ArgumentsDone,
    CallOutput,
    Completed,
    Created,
    DeletedResponse,
    Failed,
    FunctionChoice,
    FunctionTool,
    Incomplete,
    IncompleteDetails,
    InProgress,
    InputItem,
    InputItems,
    InputText,
    InputTokensDetails,
    ItemAdded,
    ItemDone,
    JsonSchemaFormat,
    ModelResponse,
    OutputCall,
    OutputMessage,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    OutputTokensDetails,
    PartAdded,
    PartDone,
    ReadItem,
    ReadMessage,
    ReadPart,
    ResponseFailure,
    ResponseId,
    ResponsesRequest,
    ResponseUsage,
    StreamEvent,
    TextConfig,
    ToolChoice,
)
from crawltalk.serve.api.sending import ResponseBuilder, json_response, respond
from crawltalk.serve.api.store import Stored
from crawltalk.serve.api.tools import call_ids
from crawltalk.serve.state import ServerState

_LOGPROBS = "message.output_text.logprobs"
_PARAMS = {
    "messages": "input",
    "prompt": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
}
"""Fields of a chat request -> where a client of this API finds them."""
_NOT_HERE = {
    "conversation": "conversations are not kept here; send previous_response_id, or all items as input",
    "prompt": "there are no stored prompts here; send instructions and input",
}


async def create_response(server: ServerState, http_request: Request, request: ResponsesRequest) -> ASGIApp:
    """The model's response to items, or to a conversation of earlier responses and new items."""
    for name, reason in _NOT_HERE.items():
        if getattr(request, name):
            raise bad_request(f"{name} is not read here: {reason}", name)
    if request.background and request.store is False:
        raise bad_request("a response made in the background has to be stored: leave store out", "store")
    if request.background and request.stream:
        raise bad_request("a response made in the background comes whole: ask for it by its id", "stream")
    _name_ignored(http_request, request)
    before: tuple[ChatMessage, ...] = ()
    if request.previous_response_id is not None:
        before = _previous(server, http_request, request.previous_response_id).messages
    places = server.service(request.model).engine.renderer.places
    messages = as_messages(before, request.input, places)
    try:
        reply = await begin_reply(
            server, http_request, _as_chat(request, messages), whole=request.truncation != "auto"
        )
    except ApiError as error:
        raise _in_terms_of_this_api(error) from None
    builder = _ResponseBuilder(reply, request, messages)
    return _in_background(server, builder) if request.background else await respond(builder)


def _in_background(server: ServerState, builder: "_ResponseBuilder") -> Response:
    """The response as it begins; a task goes on with it."""
    key = builder.generation.client, builder.state.id
    builder.keep()
    making = server.responses.making
    making[key] = asyncio.create_task(builder.finish(server.settings.timeout))
    making[key].add_done_callback(lambda _: making.pop(key, None))
    return json_response(builder.state)


async def retrieve_response(server: ServerState, http_request: Request) -> Response:
    """A response that is kept."""
    if http_request.query_params.get("stream", "").lower() == "true":
        raise bad_request("a response that is kept comes whole, not as a stream", "stream")
    return json_response(_stored(server, http_request).response)


async def delete_response(server: ServerState, http_request: Request) -> Response:
    """Forgets a response, and no longer makes it."""
    response = _stored(server, http_request).response
    await _cancel(server, http_request)
    server.responses.delete(http_request.state.client, response.id)
    return json_response(DeletedResponse(id=response.id))


async def cancel_response(server: ServerState, http_request: Request) -> Response:
    """Ends a response that is made in the background, as far as it is; a finished one stays as it is."""
    response = _stored(server, http_request).response
    if not response.background:
        raise bad_request(
            "only a response made in the background can be cancelled: close the connection of another",
            "response_id",
        )
    await _cancel(server, http_request)
    return json_response(response)


async def input_items(server: ServerState, http_request: Request) -> Response:
    """What a response was made from, item by item."""
    stored = _stored(server, http_request)
    try:
        query = msgspec.convert(dict(http_request.query_params), _ItemsQuery, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from None
    items = list(_as_items(stored))
    if query.order == "desc":
        items.reverse()
    ids = [item.id for item in items]
    if query.after is not None and query.after not in ids:
        raise bad_request(f"this response has no item {query.after!r}", "after")
    start = ids.index(query.after) + 1 if query.after is not None else 0
    page = items[start : start + query.limit]
    return json_response(
        InputItems(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=start + query.limit < len(items),
        )
    )


class _ItemsQuery(msgspec.Struct):
    after: ResponseId | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


def _as_items(stored: Stored) -> Iterator[ReadItem]:
    """The messages that the model read, as items, in order."""
    name, count = stored.response.id.removeprefix("resp_"), 0
    for message in stored.messages[: stored.read]:
        if isinstance(message, protocol.UserMessage):
            yield ReadMessage(id=f"msg_{name}_in_{count}", role="user", content=_as_parts(message.content))
            count += 1
            continue
        content = text_of(message.content or "", "input")
        match message:
            case protocol.ToolMessage():
                yield CallOutput(id=f"fco_{name}_{count}", call_id=message.tool_call_id or "", output=content)
            case AssistantMessage():
                if content:
                    part = OutputText(text=content)
                    yield ReadMessage(id=f"msg_{name}_in_{count}", role="assistant", content=[part])
                    count += 1
                for call in message.tool_calls or []:
                    given = call.function.arguments
                    yield OutputCall(
                        id=f"fc_{name}_in_{count}",
                        status="completed",
                        call_id=call.id or "",
                        name=call.function.name,
                        arguments=given if isinstance(given, str) else msgspec.json.encode(given).decode(),
                    )
                    count += 1
                continue
            case _:
                part = InputText(text=content)
                yield ReadMessage(id=f"msg_{name}_in_{count}", role="system", content=[part])
        count += 1


def _as_parts(content: protocol.Content) -> list[ReadPart]:
    """What a user said, in the terms of this API."""
    parts: list[ReadPart] = []
    for part in [content] if isinstance(content, str) else content:
        match part:
            case protocol.ImagePart(image_url=given):
                url = given.url if isinstance(given, protocol.ImageUrl) else given
                parts.append(protocol.InputImagePart(url, getattr(part, "detail", None) or "auto"))
            case protocol.AudioPart():
                parts.append(part)
            case _:
                parts.append(InputText(text=text_of([part], "input")))
    return parts


async def _cancel(server: ServerState, http_request: Request) -> None:
    """End the task that makes a response, if there is one."""
    task = server.responses.making.get((http_request.state.client, http_request.path_params["response_id"]))
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _stored(server: ServerState, http_request: Request) -> Stored:
    response_id = http_request.path_params["response_id"]
    stored = server.responses.get(http_request.state.client, response_id)
    if stored is None:
        raise _not_found(response_id)
    return stored


def _not_found(response_id: str) -> ApiError:
    return ApiError(404, f"no response {response_id[:200]!r} is kept here", param="response_id")


def _previous(server: ServerState, http_request: Request, response_id: str) -> Stored:
    stored = server.responses.get(http_request.state.client, response_id)
    if stored is None:
        raise ApiError(
            400,
            f"no response {response_id!r} is kept here: it was not stored, or was deleted, or gave way to newer ones, "
            "or the server was started since; send the whole conversation as input",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if stored.response.status not in ("completed", "incomplete"):
        raise bad_request(
            f"the response {response_id!r} is {stored.response.status}: only one that has an end can be continued",
            "previous_response_id",
        )
    return stored


def _name_ignored(http_request: Request, request: ResponsesRequest) -> None:
    """Name what of the request is not read beside unknown fields: tools that are no functions, further output."""
    kinds = dict.fromkeys(tool.type for tool in request.tools or [] if tool.type != "function")
    further = dict.fromkeys(one for one in request.include or [] if one != _LOGPROBS)
    ignored = [*(f"tools ({kind})" for kind in kinds), *(f"include ({one})" for one in further)]
    if ignored:
        entry = http_request.state.log_entry
        entry["ignored"] = [*entry.get("ignored", []), *ignored]


def _in_terms_of_this_api(error: ApiError) -> ApiError:
    detail, name = error.detail, error.detail.param or ""
    param = _PARAMS.get(name.split(".")[0], detail.param)
    return ApiError(error.status, detail.message, param=param, code=detail.code, headers=error.headers)


def _as_chat(request: ResponsesRequest, messages: Sequence[ChatMessage]) -> ChatRequest:
    """The same as a request of chat. Raises ApiError."""
    system = [protocol.SystemMessage(content=request.instructions)] if request.instructions else []
    shared: dict[str, Any] = {
        name: getattr(request, name) for name in protocol.SamplingRequest.__struct_fields__
    }
    return ChatRequest(
        messages=[*system, *messages],
        max_completion_tokens=request.max_output_tokens,
        response_format=_form(request.text),
        tools=[protocol.Tool(function=_function(tool, index)) for index, tool in _functions(request)],
        tool_choice=_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        logprobs=_LOGPROBS in (request.include or ()),
        top_logprobs=request.top_logprobs if _LOGPROBS in (request.include or ()) else None,
        **shared,
    )


def _functions(request: ResponsesRequest) -> list[tuple[int, FunctionTool]]:
    return [(index, tool) for index, tool in enumerate(request.tools or []) if tool.type == "function"]


def _function(tool: FunctionTool, index: int) -> protocol.Function:
    if not tool.name:
        raise bad_request("a function has a name", f"tools[{index}].name")
    return protocol.Function(name=tool.name, description=tool.description, parameters=tool.parameters)


def _form(
    text: TextConfig | None,
) -> protocol.TextFormat | protocol.JsonFormat | protocol.SchemaFormat | None:
    form = text.format if text is not None else None
    return protocol.SchemaFormat(schema=form.schema) if isinstance(form, JsonSchemaFormat) else form


def _choice(
    choice: ToolChoice | None,
) -> Literal["none", "auto", "required"] | protocol.NamedTool | protocol.AllowedToolsChoice | None:
    match choice:
        case FunctionChoice():
            return protocol.NamedTool(function=protocol.ToolName(choice.name))
        case AllowedChoice():
            names = [protocol.ToolName(tool.name) for tool in choice.tools if tool.name is not None]
            references = [protocol.ToolReference(function=name) for name in names]
            return protocol.AllowedToolsChoice(
                allowed_tools=protocol.AllowedTools(mode=choice.mode, tools=references)
            )
    return choice


def as_messages(
    before: Sequence[ChatMessage], given: str | Sequence[InputItem], places: Container[str] = ()
) -> list[ChatMessage]:
    """A conversation and what comes after it. `places`: as `chat.conversation` has them. Raises ApiError for an item
    that lacks a field, for parts that the model does not read, and for the result of a call that nobody made.
    """
    if isinstance(given, str):
        return [*before, protocol.UserMessage(content=given)]
    messages, known = list(before), call_ids(before)
    for index, item in enumerate(given):
        where = f"input[{index}]"
        match item.type:
            case "message":
                messages.append(_message(item, where, places))
            case "function_call":
                call_id = _needed(item.call_id, f"{where}.call_id")
                call = Call(name=_needed(item.name, f"{where}.name"), arguments=item.arguments)
                _add_call(messages, protocol.ToolCall(id=call_id, function=call))
                known.add(call_id)
            case "function_call_output":
                call_id = _needed(item.call_id, f"{where}.call_id")
                if call_id not in known:
                    raise bad_request(
                        f"no call {call_id[:200]!r} comes before this result", f"{where}.call_id"
                    )
                text = text_of(item.output or "", f"{where}.output")
                messages.append(protocol.ToolMessage(content=text, tool_call_id=call_id))
    if not messages:
        raise bad_request("there is nothing to respond to", "input")
    return messages


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise bad_request("this item needs the field", where)
    return value


def _message(item: InputItem, where: str, places: Container[str]) -> ChatMessage:
    if item.content is None:
        raise bad_request("a message needs a content", f"{where}.content")
    if item.role == "user" and parts_of(item.content, f"{where}.content", places):
        return protocol.UserMessage(content=item.content)
    text = text_of(item.content, f"{where}.content")
    match item.role:
        case "user":
            return protocol.UserMessage(content=text)
        case "assistant":
            return AssistantMessage(content=text)
        case "system" | "developer":
            return protocol.SystemMessage(content=text)
    raise bad_request("a message needs a role", f"{where}.role")


def _add_call(messages: list[ChatMessage], call: protocol.ToolCall) -> None:
    """Add a call to the assistant's turn, if that is the last one, or else in a turn of its own."""
    if messages and isinstance(messages[-1], AssistantMessage):
        last = messages[-1]
        messages[-1] = msgspec.structs.replace(last, tool_calls=[*(last.tool_calls or []), call])
    else:
        messages.append(AssistantMessage(tool_calls=[call]))


class _ResponseBuilder(ResponseBuilder):
    """Writes a generation as a response of items."""

    ends_with_done = False

    def __init__(self, reply: ChatReply, request: ResponsesRequest, messages: Sequence[ChatMessage]) -> None:
        self.generation, self.tools, self.request = reply.generation, reply.tools, request
        self.messages = messages
        self.tokenizer = self.generation.service.engine.tokenizer
        self.output: list[OutputMessage | OutputCall] = []
        self.state = ModelResponse(
            id=f"resp_{self.generation.id}",
            created_at=self.generation.created,
            status="in_progress",
            model=request.model,
            instructions=request.instructions,
            previous_response_id=request.previous_response_id,
            output=self.output,
            tools=[tool for _, tool in _functions(request)],
            tool_choice=request.tool_choice or "auto",
            parallel_tool_calls=request.parallel_tool_calls is not False,
            text=request.text or TextConfig(format=protocol.TextFormat()),
            max_output_tokens=request.max_output_tokens,
            temperature=or_default(request.temperature, 1.0),
            top_p=or_default(request.top_p, 1.0),
            truncation=request.truncation or "disabled",
            store=request.store is not False,
            background=bool(request.background),
            metadata=request.metadata or {},
            dropped_messages=reply.dropped or UNSET,
        )
        self._open: OutputMessage | None = None
        """The message that is being written: the last item."""
        self._tokens: list[Token] = []
        """Whose text was not sent yet."""
        self._number = 0
        """Of the next event."""

    async def response(self) -> ModelResponse:
        """The whole response."""
        async for _ in self.chunks():
            pass
        return self.state

    async def finish(self, timeout: float) -> None:
        """Make the whole response while nobody waits for it, and keep how it ends."""
        try:
            async with asyncio.timeout(timeout):
                await self.response()
        except asyncio.CancelledError:
            self._leave("cancelled")
            raise
        except Exception as error:
            api_error = as_api_error(error)
            if api_error is None:
                self.generation.log_entry["traceback"] = traceback.format_exc()
            self.failure(api_error or internal_error(self.generation.id))
            self._leave("failed")
        finally:
            await self.generation.close()

    def _leave(self, status: Literal["cancelled", "failed"]) -> None:
        """Keep the response as far as it is."""
        self.state.status, self.state.usage = status, _usage(self.generation.usage())
        if self._open is not None:
            self._open.status = "incomplete"
        self.keep()

    def keep(self, *reply: AssistantMessage) -> None:
        """Keep the response, with its conversation."""
        stored = Stored(self.state, (*self.messages, *reply), len(self.messages))
        self.generation.server.responses.put(self.generation.client, stored)

    async def chunks(self) -> AsyncIterator[StreamEvent]:
        """The response in parts: it is there, items grow one after the other, and it ends."""
        yield self._numbered(Created(response=self.state))
        yield self._numbered(InProgress(response=self.state))
        reader = self.tools.reader()
        async for _, event in self.generation.events():
            self._tokens += event.tokens
            for part in reader.read(event.text, final=event.finish_reason is not None):
                for one in self._call(part) if isinstance(part, ToolCall) else self._text(part):
                    yield self._numbered(one)
        cut = self.generation.replies[0].finish == "length"
        for one in self._end(cut=cut):
            yield self._numbered(one)
        yield self._numbered(Incomplete(response=self.state) if cut else Completed(response=self.state))

    def failure(self, error: ApiError) -> StreamEvent:
        """The response, failed."""
        self.state.status = "failed"
        self.state.error = ResponseFailure(error.detail.code or "server_error", error.detail.message)
        return self._numbered(Failed(response=self.state))

    def _numbered(self, event: StreamEvent) -> StreamEvent:
        event.sequence_number = self._number
        self._number += 1
        return event

    def _text(self, text: str) -> Iterator[StreamEvent]:
        """Add text to the open message, or to a new one."""
        if not text:
            return
        if self._open is None:
            yield from self._begin_message()
        assert self._open is not None
        [part], logprobs = self._open.content, self._take_logprobs()
        part.text += text
        part.logprobs += logprobs
        yield OutputTextDelta(
            item_id=self._open.id, output_index=len(self.output) - 1, delta=text, logprobs=logprobs
        )

    def _call(self, call: ToolCall) -> Iterator[StreamEvent]:
        """Close the open message and add a call."""
        self._tokens = []  # they spell the call
        yield from self._close_message("completed")
        index, arguments = len(self.output), call.function.arguments
        item = OutputCall(
            id=f"fc_{self.generation.id}_{index}",
            status="in_progress",
            call_id=call.id or "",
            name=call.function.name,
            arguments="",
        )
        self.output.append(item)
        yield ItemAdded(output_index=index, item=item)
        item.arguments, item.status = arguments, "completed"
        yield ArgumentsDelta(item_id=item.id, output_index=index, delta=arguments)
        yield ArgumentsDone(item_id=item.id, output_index=index, name=item.name, arguments=arguments)
        yield ItemDone(output_index=index, item=item)

    def _begin_message(self) -> Iterator[StreamEvent]:
        index = len(self.output)
        item_id = f"msg_{self.generation.id}_{index}"
        self._open = OutputMessage(id=item_id, status="in_progress", content=[])
        self.output.append(self._open)
        yield ItemAdded(output_index=index, item=self._open)
        self._open.content = [OutputText(text="")]
        yield PartAdded(item_id=item_id, output_index=index, part=self._open.content[0])

    def _close_message(self, status: Literal["completed", "incomplete"]) -> Iterator[StreamEvent]:
        message, index = self._open, len(self.output) - 1
        if message is None:
            return
        [part] = message.content
        part.logprobs += self._take_logprobs()
        message.status, self._open = status, None
        yield OutputTextDone(item_id=message.id, output_index=index, text=part.text, logprobs=part.logprobs)
        yield PartDone(item_id=message.id, output_index=index, part=part)
        yield ItemDone(output_index=index, item=message)

    def _end(self, *, cut: bool) -> Iterator[StreamEvent]:
        """Close the last item, complete the response and keep it."""
        if not self.output:
            yield from self._begin_message()
        yield from self._close_message("incomplete" if cut else "completed")
        self.state.usage = _usage(self.generation.usage())
        self.state.status = "incomplete" if cut else "completed"
        if cut:
            self.state.incomplete_details = IncompleteDetails()
        else:
            self.state.completed_at = int(time.time())
        if self.state.store:
            self.keep(_as_message(self.output))

    def _take_logprobs(self) -> list[protocol.ContentLogprob]:
        """Of the tokens whose text was not sent yet; none unless the request includes them."""
        tokens, self._tokens = self._tokens, []
        asked = _LOGPROBS in (self.request.include or ())
        return [content_logprob(self.tokenizer, token) for token in tokens] if asked else []


def _as_message(output: Sequence[OutputMessage | OutputCall]) -> AssistantMessage:
    """The reply as a turn of the conversation."""
    text = "".join(item.content[0].text for item in output if isinstance(item, OutputMessage))
    calls = [
        protocol.ToolCall(id=item.call_id, function=Call(name=item.name, arguments=item.arguments))
        for item in output
        if isinstance(item, OutputCall)
    ]
    return AssistantMessage(content=text, tool_calls=calls or None)


def _usage(usage: protocol.Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(),
        total_tokens=usage.total_tokens,
    )
