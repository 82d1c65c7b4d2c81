"""/v1/chat/completions: a conversation becomes a request of the engine, and its answer a reply or a stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from camelid.errors import OptionError
from camelid.serve.errors import ApiError, as_api_error
from camelid.serve.models import Models
from camelid.serve.openai.choices import Choice, Speller, Tools
from camelid.serve.openai.chunks import ChatChunks
from camelid.serve.openai.event_stream import EventStream, while_connected
from camelid.serve.openai.messages import to_messages
from camelid.serve.openai.replies import ChatReply, chat_choice, head
from camelid.serve.openai.requests import ChatRequest, JsonObjectFormat, JsonSchemaFormat
from camelid.serve.openai.running import Running
from camelid.serve.worker import Worker
from camelid.tokens.tool_styles import tool_names

if TYPE_CHECKING:
    from camelid.chat.constrain import Form

# what messages of OptionError name → the parameter that a client knows
_PARAMETERS = {"prompt": "messages", "form": "response_format", "json_schema": "response_format"}


async def answer(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation.

    Raises:
        ApiError: there is no such model, a parameter is wrong, or there is no room.
    """
    models: Models = request.app.state.models
    worker = models.get(body.model)
    running = await asyncio.to_thread(_prepare, worker, body)
    if body.stream:
        chunks = ChatChunks(head(worker, "chat.completion.chunk"), body.wants_usage)
        return EventStream(running.events(chunks, body.wants_usage))
    answers = await while_connected(request.receive, running.whole())
    reply = ChatReply(
        **head(worker, "chat.completion"),
        choices=[chat_choice(answer, with_logprobs=bool(body.logprobs)) for answer in answers],
        usage=running.usage(),
    )
    return Response(reply.model_dump_json(exclude_unset=True), media_type="application/json")


def _prepare(worker: Worker, body: ChatRequest) -> Running:
    """Everything up to the engine; a thread's work, since templates and forms may take their time."""
    llama, tools = worker.llama, _tools(body)
    params = body.params(llama.params, max_tokens=body.limit, logprobs=body.n_logprobs)
    form = _form(body)
    if form is not None and (params.stop or params.stop_ids):
        name = "stop" if params.stop else "stop_ids"
        raise ApiError(400, f"{name}: the form alone says where the answer ends; leave one of them out", None, name)
    try:
        made = llama.chat_request(to_messages(body.messages), params, form=form, tools=tools)
    except OptionError as error:
        api = as_api_error(error)
        raise ApiError(api.status, api.message, api.code, _PARAMETERS.get(api.param or "", api.param)) from None
    found = None
    if tools:
        style = llama.chat_format.tool_style
        assert style is not None  # the conversation could not have been encoded
        found = Tools(style, tool_names(tools), only_one=body.parallel_tool_calls is False)
    choices = []
    for index in range(params.n):
        speller = Speller(llama.tokenizer, starts_text=True) if body.logprobs else None
        choices.append(Choice(index, llama.tokenizer, speller=speller, tools=found, is_json=form is not None))
    return Running(worker, [made], choices, starts_text=True)


def _form(body: ChatRequest) -> Form | None:
    from camelid.chat.constrain import Form

    if isinstance(body.response_format, JsonObjectFormat):
        return Form(json_schema={"type": "object"})
    if isinstance(body.response_format, JsonSchemaFormat):
        return Form(json_schema=body.response_format.json_schema.schema_)
    return None


def _tools(body: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown: those that it may call."""
    if body.tool_choice == "none":
        return []
    return [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
