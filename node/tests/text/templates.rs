//! Conversations into prompts.
