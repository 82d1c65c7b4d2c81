"""/v1/chat/completions: a conversation becomes a request of the engine, and its answer a reply or a stream."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from camelid.chat.answer import TextRequest
from camelid.chat.llama import Llama
from camelid.errors import OptionError
from camelid.serve.errors import named
from camelid.serve.event_stream import EventStream
from camelid.serve.models import Models
from camelid.serve.openai.messages import NamedTool, to_messages
from camelid.serve.openai.replies import ChatReply, Usage, chat_choice, head
from camelid.serve.openai.requests import ChatRequest, JsonObjectFormat, JsonSchemaFormat
from camelid.serve.openai.stream import ChatChunks, events, whole
from camelid.tokens.templates.tool_styles import Style
from camelid.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from camelid.chat.constrain import Form


CHAT = {
    "prompt": "messages",
    "text": "messages",
    "tool_calls": "messages",
}  # ours → OpenAI's


async def answer(body: ChatRequest, models: Models) -> Response:
    """Answer a conversation.

    Raises:
        ApiError: there is no such model, a parameter is wrong, or there is no room.
    """
    worker = models.get(body.model)
    if body.may_have_form:
        asked = await worker.prepare(partial(_prepare, worker.llama, body))
    else:
        asked = await asyncio.to_thread(_prepare, worker.llama, body)
    if body.stream:
        chunks = ChatChunks(head(worker, "chat.completion.chunk"), body.wants_usage)
        return EventStream(events(worker, [asked], chunks))
    answers = await whole(worker, [asked])
    reply = ChatReply(
        **head(worker, "chat.completion"),
        choices=[chat_choice(index, answer, bool(body.logprobs)) for index, answer in enumerate(answers)],
        usage=Usage.of(answers, asked.params.n, len(asked.ids)),
    )
    return Response(reply.model_dump_json(exclude_unset=True), media_type="application/json")


def _prepare(llama: Llama, body: ChatRequest) -> TextRequest:
    """Everything up to the engine; a thread's work, since templates and forms may take their time."""
    messages, tools = to_messages(body.messages), _tools(body)
    form_is = "tools" if body.response_format is None else "response_format"
    with named({**CHAT, "form": form_is, "json_schema": form_is}):
        params = body.params(llama.params, max_tokens=body.limit, logprobs=body.n_logprobs)
        style = llama.chat_format.tool_style if tools else None  # None though there are tools: encoding says why
        return llama.chat_request(
            messages,
            params,
            form=_form(body, llama.tokenizer, tools, style),
            tools=tools,
            parallel_tool_calls=body.parallel_tool_calls is not False,
            continue_final_message=body.continues,
        )


def _tools(body: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown: those that it may call. Templates look up every property of a function."""
    from camelid.chat.tool_calls import NOTHING

    if body.tool_choice == "none":
        return []
    left_out = {"description": "", "parameters": NOTHING}
    given = [tool.function.model_dump(exclude_none=True) for tool in body.tools or ()]
    return [{"type": "function", "function": {**left_out, **function}} for function in given]


def _form(body: ChatRequest, tokenizer: Tokenizer, tools: list[dict[str, Any]], style: Style | None) -> Form | None:
    """What the answer must be, if anything.

    Raises:
        OptionError: it must be two things, or is wrong itself.
    """
    from camelid.chat.constrain import Form
    from camelid.chat.tool_calls import tool_form

    schema: dict[str, Any] | None = None
    if isinstance(body.response_format, JsonObjectFormat):
        schema = {"type": "object"}
    elif isinstance(body.response_format, JsonSchemaFormat):
        schema = body.response_format.json_schema.schema_
    if schema is not None and tools:
        raise OptionError(
            "response_format: an answer after a form cannot call tools; set tool_choice to none",
            param="response_format",
        )
    if schema is not None:
        return Form(json_schema=schema, place="response_format.json_schema.schema", promise="json")
    if style is None:
        return None
    if body.tool_choice in (None, "auto"):
        if not any(tool["function"].get("strict") for tool in tools):
            return None
        return tool_form([_as_strict(tool) for tool in tools], None, style, tokenizer, talk=True)
    named = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else None
    parallel = named is None and body.parallel_tool_calls is not False
    return tool_form(tools, named, style, tokenizer, parallel=parallel)


def _as_strict(tool: dict[str, Any]) -> dict[str, Any]:
    """A function as a form has it: with any arguments, unless it is strict."""
    function = tool["function"]
    return tool if function.get("strict") else {**tool, "function": {**function, "parameters": {"type": "object"}}}
