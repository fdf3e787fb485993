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
//! * [`start()`]: a running node; [`head`] owns a session, `stage` computes, [`router`] chooses the way, `control` finds
//!   out who is there and replans, [`plans`] is what they publish.
//! * [`limits`]: every bound.

mod batch;
pub mod clock;
mod control;
pub mod engine;
pub mod framed;
pub mod head;
mod hub;
pub mod ids;
pub mod limits;
mod outbox;
pub mod plans;
pub mod probe;
pub mod router;
mod stage;
mod start;
mod tasks;
pub mod transport;
pub mod wire;
pub mod world;

pub use crate::head::{Replies, Reply, Request};
pub use crate::limits::Limits;
pub use crate::router::FleetView;
pub use crate::start::{NodeConfig, NodeHandle, start};
