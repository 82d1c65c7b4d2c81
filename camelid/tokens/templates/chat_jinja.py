"""Built-in chat formats as Jinja templates, for the files that other programs open. Written to give the same ids."""

from __future__ import annotations

_ROLES = (
    "{% for message in messages %}{% if message['role'] not in [ROLES] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}"
    + _ROLES.replace("ROLES", "'system', 'user', 'assistant'")
    + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
# Calls of tools by JSON, as Llama 3.1's model card has them; words before a call are parted from it by its own token.
_LLAMA31_TOOLS = (
    "{{ 'Given the following functions, please respond with a JSON for a function call with its proper arguments "
    'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary '
    "of argument name and its value}. Do not use variables.\n\n' }}"
    "{% for tool in left.tools %}{{ tool | tojson(indent=4) + '\n\n' }}{% endfor %}"
)
_LLAMA31_CALLS = (
    "{{ message['content'] | trim + '<|python_tag|>' if message['content'] | trim }}"
    "{% for call in message['tool_calls'] %}{% set given = call['function']['arguments'] %}{{ '; ' if not loop.first }}"
    "{{ '{\"name\": \"' + call['function']['name'] + '\", \"parameters\": ' }}"
    "{{ (given if given is string else given | tojson) + '}' }}{% endfor %}"
)
LLAMA31 = (
    "{% set left = namespace(tools=tools) %}{{ bos_token }}"
    + _ROLES.replace("ROLES", "'system', 'user', 'assistant', 'tool', 'ipython'")
    + "{{ '<|start_header_id|>' + ('ipython' if message['role'] == 'tool' else message['role']) }}"
    "{{ '<|end_header_id|>\n\n' }}{% if message['tool_calls'] %}"
    + _LLAMA31_CALLS
    + "{% else %}{% if message['role'] == 'user' and left.tools %}"
    + _LLAMA31_TOOLS
    + "{% set left.tools = none %}{% endif %}{{ message['content'] | trim }}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if left.tools %}{{ raise_exception('tools need a message of the user') }}{% endif %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    _ROLES.replace("ROLES", "'system', 'user', 'assistant', 'tool'")
    + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('roles must go user, assistant, user') }}{% endif %}"
    "{% set content = system + message['content'] if loop.first else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
