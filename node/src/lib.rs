//! One machine of the mesh, written once: the same head, stage, router and recovery run in the simulator's worlds and
//! over real links. Everything a node touches comes through its [`Doors`](world::Doors); it reads no other clock,
//! socket, device or entropy.
//!
//! The seams, which a world implements or reads:
//!
//! * [`ids`]: names of peers, sessions, tokens, plans.
//! * [`world`]: the traits a world implements, and the doors a node is handed.
//! * [`clock`]: the only source of now and of waiting.
//! * [`transport`]: one-way streams of frames, by peer and lane. [`switch`]: several conversations over one.
//! * [`engine`]: a range of layers on one device, and its KV cache. [`asides`]: short steps between the layers of a long
//!   one.
//! * [`sampling`]: how the last stage chooses a token.
//! * [`probe`]: what a node tells about itself.
//! * [`wire`]: the frames; [`framed`] puts them on byte streams.
//! * [`limits`]: every bound in one place.
//!
//! The node: [`start`] gives a [`NodeHandle`], that takes a [`Request`] and gives [`Replies`].
//!
//! * [`head`]: owns a session from start to end.
//! * `stage`: what waits becomes a batch, a batch one engine step.
//! * [`router`]: where a request goes, a pure function of [`plans`], [`view`] and the request.
//! * `control`: who is alive, which plan holds, what of it serves.
//! * [`membership`]: who is in the mesh and what each says of itself; [`demand`]: what is asked for. [`gossip`] runs them
//!   over a transport.
//! * [`assign`]: which machine serves which model; [`routing`]: which host a request goes to.
//! * `outbox`, `intake`: what leaves, what comes in. [`probe`], [`record`]: what happens, and as a file.
//!
//! Real machines, behind cargo features so that the simulator is built without them:
//!
//! * [`real`] (`engine`): the CPU engine over GGUF files.
//! * [`http`] (`http`): the OpenAI-compatible API.
//! * [`cli`] (`cli`): the commands of `meshwright`.

pub mod asides;
pub mod assign;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
mod control;
pub mod demand;
pub mod engine;
pub mod framed;
pub mod gossip;
pub mod head;
mod heads;
#[cfg(feature = "http")]
pub mod http;
pub mod ids;
mod intake;
mod interior;
mod ledger;
pub mod limits;
pub mod membership;
mod node;
mod outbox;
pub mod plans;
pub mod probe;
#[cfg(feature = "engine")]
pub mod real;
pub mod record;
pub mod router;
pub mod routing;
pub mod sampling;
mod stage;
pub mod switch;
mod tasks;
pub mod transport;
pub mod view;
pub mod wire;
pub mod world;

pub use crate::control::Least;
pub use crate::head::{Refused, Replies, Reply, Request};
pub use crate::ids::PeerId;
pub use crate::limits::Limits;
pub use crate::node::{NodeConfig, NodeHandle, start};
pub use crate::view::FleetView;
