"""An answer that is JSON of a given form, whatever the model would rather say."""

import json

import camelid
from camelid.chat import Form

city = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "millions": {"type": "integer"}},
    "required": ["city", "millions"],
    "additionalProperties": False,
}
llama = camelid.load("smollm2:135m-instruct")
answer = llama.chat("Name a big city and its population.", form=Form(json_schema=city), temperature=0, max_tokens=60)
print(json.loads(answer.text))
