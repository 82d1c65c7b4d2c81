"""The formats of model files: GGUF, Hugging Face folders and Meta folders, read and written."""
