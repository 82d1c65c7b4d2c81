"""OpenAI's API: what its clients ask and are answered, over the workers of `camelid.serve`."""
