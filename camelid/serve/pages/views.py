"""How conversations and messages look from outside: as JSON for scripts, as values for templates, as files to keep."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import escape

from camelid.serve.pages.markdown import to_html
from camelid.serve.storage.conversations import Tree
from camelid.serve.storage.tables import Conversation, StoredMessage

UNTITLED = "New conversation"
TITLE_CHARACTERS = 60


def title_of(question: str) -> str:
    """A conversation's first title: how its first question begins, cut between words."""
    words = " ".join(question.split())
    if len(words) <= TITLE_CHARACTERS:
        return words
    cut = words[:TITLE_CHARACTERS]
    return (cut.rpartition(" ")[0] or cut) + "…"


def summary(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a list shows it."""
    return {
        "id": conversation.id,
        "title": conversation.title or UNTITLED,
        "model": conversation.model,
        "created": f"{conversation.created.isoformat(timespec='seconds')}Z",
        "updated": f"{conversation.updated.isoformat(timespec='seconds')}Z",
    }


def whole(tree: Tree) -> dict[str, Any]:
    """A conversation with all messages, and which of them make the branch that is shown."""
    conversation = tree.conversation
    return {
        **summary(conversation),
        "system": conversation.system,
        "params": conversation.params,
        "path": [message.id for message in tree.path(conversation.leaf)],
        "messages": [view(message, tree.versions(message)) for message in tree.messages],
    }


def shown(tree: Tree) -> list[dict[str, Any]]:
    """The messages of the branch that is shown."""
    return [view(message, tree.versions(message)) for message in tree.path(tree.conversation.leaf)]


def view(message: StoredMessage, versions: list[int]) -> dict[str, Any]:
    """A message with its text as HTML, and the ids of all that stand at its place; an id of None is not kept."""
    is_answer = message.role == "assistant"
    return {
        "id": message.id,
        "parent": message.parent,
        "versions": versions,
        "role": message.role,
        "content": message.content,
        "html": to_html(message.content) if is_answer else f"<p>{escape(message.content)}</p>",
        "model": message.model,
        "state": message.state,
        "finish_reason": message.finish_reason,
        "error": message.error,
        "usage": message.usage or {},
        "seconds": message.seconds,
        "note": note(message) if is_answer else "",
    }


def note(message: StoredMessage) -> str:
    """What stands below an answer: how long it is, how quickly it came, and whether it came to its end."""
    usage = message.usage or {}
    parts = []
    if n_tokens := usage.get("completion_tokens", 0):
        parts.append(f"{n_tokens:,} token{'s' if n_tokens > 1 else ''}")
    if speed := usage.get("tokens_per_second", 0):
        parts.append(f"{speed:.{1 if speed < 10 else 0}f} tokens/s")
    if message.state == "stopped":
        parts.append("stopped")
    elif message.finish_reason == "length":
        parts.append("cut off at the limit")
    return " · ".join(parts)


def as_markdown(tree: Tree) -> str:
    """The branch that is shown, to be read."""
    conversation = tree.conversation
    parts = [
        f"# {conversation.title or UNTITLED}",
        f"*{conversation.model}, {conversation.created:%Y-%m-%d %H:%M} UTC*",
    ]
    if conversation.system:
        parts.append("\n".join(f"> {line}".rstrip() for line in conversation.system.splitlines()))
    for message in tree.path(conversation.leaf):
        who = "You" if message.role == "user" else message.model
        parts += [f"## {who}", message.content.strip()]
    return "\n\n".join(parts) + "\n"


def as_json(tree: Tree) -> str:
    """Everything that is kept of a conversation, all branches included."""
    rows = [{column.key: getattr(row, column.key) for column in row.__table__.columns} for row in tree.messages]
    head = {column.key: getattr(tree.conversation, column.key) for column in Conversation.__table__.columns}
    return json.dumps({**head, "messages": rows}, ensure_ascii=False, indent=1, default=str) + "\n"


def file_name(conversation: Conversation) -> str:
    """Letters, digits and hyphens, for any file system."""
    return re.sub(r"[^a-z0-9]+", "-", conversation.title.lower()).strip("-")[:50] or "conversation"
