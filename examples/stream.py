"""Text as it is written, with the probability of each token."""

import math

import camelid

llama = camelid.load("smollm2:135m-instruct")
for delta in llama.stream("The best thing about AI is its ability to", max_tokens=12, temperature=0, logprobs=0):
    print(f"{delta.text!r:>16}  {math.exp(delta.token.logprob):.1%}")
