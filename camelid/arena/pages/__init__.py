"""The arena's pages: a battle, two chosen models side by side, a conversation that was shared, and About.

What their scripts ask of the API below `/arena/api`, errors being serve's own JSON:

    POST   /battles {mode, models?}        → {id}; mode is battle or side-by-side, models are two names
    POST   /battles/{id}/messages {text}   → events, see below
    POST   /battles/{id}/regenerate        → events
    POST   /battles/{id}/share             → {address}, a path as /arena/share/ID
    GET    /battles/{id}                   → {turns: [{question, a: {html, state}, b: …}], ticket, vote, models}
    POST   /votes {ticket, vote}           → {models: {a: {name, organisation, licence, link}, b: …}}
    DELETE /me

Events are JSON with a `type`: `delta {side, blocks}` and `end {side, blocks}` as `Rendering` makes them of texts,
`failed {message}`, and `ready {ticket}` when both sides have ended. Hanging up stops both answers. A vote is
A, B, TIE or BOTH_BAD; `models` is null before it, `ticket` after it.
"""
