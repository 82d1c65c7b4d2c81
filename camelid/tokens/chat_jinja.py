"""Built-in chat formats as Jinja templates, for the files that other programs open. Written to give the same ids."""

from __future__ import annotations

_ROLES = (
    "{% for message in messages %}{% if message['role'] not in [ROLES] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}"
    + _ROLES
    + "{{ '<|start_header_id|>' + ROLE + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA3 = _LLAMA3.replace("ROLES", "'system', 'user', 'assistant'").replace("ROLE", "message['role']")
LLAMA31 = _LLAMA3.replace("ROLES", "'system', 'user', 'assistant', 'tool', 'ipython'").replace(
    "ROLE", "('ipython' if message['role'] == 'tool' else message['role'])"
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
