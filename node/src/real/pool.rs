//! The engine's own threads: they spin briefly between pieces of work, then park.
