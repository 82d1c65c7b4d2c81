"""Load the default model and ask it something."""

import camelid

llama = camelid.load("smollm2:135m-instruct")
answer = llama.chat("What is the capital of France?", temperature=0, max_tokens=40)
print(answer.text)
print(f"{answer.usage.prompt_tokens} tokens read, {answer.usage.completion_tokens} written: {answer.finish_reason}")
