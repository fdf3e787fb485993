//! One machine of the mesh, written once: the same head, stage, router and recovery run in the simulator's worlds and
//! over real links. Everything a node touches comes through its [`Doors`](world::Doors); it reads no other clock,
//! socket, device or entropy.
//!
//! * [`ids`]: names of peers, sessions, tokens.
//! * [`world`]: the traits a world implements, and the doors a node is handed.
//! * [`clock`]: the only source of now and of waiting.
//! * [`transport`]: one-way streams of frames, by peer and lane.
//! * [`engine`]: a range of layers on one device, and its KV cache.
//! * [`probe`]: what a node tells about itself.
//! * [`wire`]: the frames; [`framed`] puts them on byte streams.

pub mod clock;
pub mod engine;
pub mod ids;
pub mod probe;
pub mod transport;
pub mod wire;
pub mod world;
