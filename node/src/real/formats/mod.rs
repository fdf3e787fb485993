//! The element types of ggml: widening blocks to f32, and quantising rows as llama.cpp does.
