"""The files that hold a tokenizer: tokenizer.json, SentencePiece, tiktoken, GGUF; read and saved."""
