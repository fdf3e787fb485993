//! Tokens from text and back, and chat templates, from the metadata of a GGUF file.
