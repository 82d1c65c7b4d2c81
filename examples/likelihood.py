"""Which ending does the model find likelier? And how surprised is it by a text?"""

import camelid

llama = camelid.load("smollm2:135m-instruct")
for ending in (" Paris.", " Rome."):
    likelihood = llama.loglikelihood("The capital of France is", ending)
    print(f"{ending:8} {likelihood.logprob:8.3f} nats over {likelihood.n_tokens} tokens")
surprise = llama.perplexity("The quick brown fox jumps over the lazy dog.")
print(f"perplexity {surprise.perplexity:.1f}, {surprise.bits_per_byte:.2f} bits per byte")
