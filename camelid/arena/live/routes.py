"""What the arena's pages ask of the server, as JSON below /arena/api, and answers as they are written.

A person is a random signed cookie, `camelid_arena`, which any of these calls sets where it is missing. Nobody reaches
another person's battle: it is 404 for them. Errors have OpenAI's shape, as everywhere: `{"error": {"message", …}}`.

    POST   /battles             {"mode": "battle"} or {"mode": "side-by-side", "models": [NAME, NAME]}  →  {"id"}
    GET    /battles/ID          {"id", "mode", "turns": [{"question", "a": {"html", "text", "state"}, "b": {…}}],
                                "ticket", "vote", "models"}; states: complete, answering, failed
    POST   /battles/ID/messages {"text"}  →  events; the pair is drawn at the first one
    POST   /battles/ID/regenerate         →  events; both answers of the newest turn anew
    POST   /battles/ID/share              →  {"address"}
    POST   /votes               {"ticket", "vote": "A" | "B" | "TIE" | "BOTH_BAD"}  →  {"models": {"a": MODEL, "b": MODEL}}
    GET    /models              [MODEL]; MODEL = {"name", "organisation", "licence", "cutoff", "link", "description"}
    DELETE /me                  {"deleted": N}: the person's conversations and their link to votes are gone

Events are server-sent, each `data: {…}`; `delta` has `blocks` of HTML, as `pages/rendering.py` makes them:

    {"type": "start"}                                            the question is taken
    {"type": "delta", "side": "a", "blocks": [[PLACE, HTML], …]} for both sides in each tick, in this order: a, b
    {"type": "end", "side": "a", "blocks": […]}                  both sides end in the same tick
    {"type": "ready", "ticket": TICKET}                          now a vote is taken, once
    {"type": "failed", "message": SENTENCE}                      one of them did not answer; the sentence is neutral

`models` and `vote` of a battle are null before the vote, except side by side, where the person has chosen the models.
A vote that may have been lost on its way (503, or no answer) is sent again with the same ticket: it counts once. Other
answers to a vote: 400 the ticket is none of ours, or another session's; 409 the answers have not ended, the conversation
went on, the battle failed, or another vote was given before. 429: a limit; Retry-After says in how many seconds.
"""

from __future__ import annotations
