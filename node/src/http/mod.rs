//! The OpenAI-compatible API. It knows HTTP and text, and nothing of nodes but what a [`Desk`] says.
//!
//! * [`Desk`], [`Served`], [`Health`]: the node as the API sees it.
//! * [`Server`] takes connections, [`Api`] answers requests, within [`Bounds`]; [`Meter`] counts.
//! * `guard`, `body`, `stall`: who may ask, how much, and for how long. `routes`: which address is what.
//! * `asked`: what a request wants, out of JSON; prompts become tokens. `fields` reads JSON and names what is wrong.
//! * `speech`: tokens become text, up to what ends it. `talk`: the answers of a request at once.
//! * [`Forward`]: the same API on a machine that only asks: requests go to nodes of a mesh.
//! * `turns`: whose request is answered next.
//! * `shapes`: the objects that clients get; `sse`: as a stream; `resume`: gone on with at another node. `fault`: errors, in the same form as OpenAI's.
//! * `observing`: what happens on the node, as it happens.

mod asked;
mod body;
mod bounds;
mod desk;
mod entropy;
mod fault;
mod fields;
mod forward;
mod guard;
mod meter;
mod observing;
mod resume;
mod routes;
mod server;
mod shapes;
mod speech;
mod sse;
mod stall;
mod talk;
mod turns;

pub use self::bounds::Bounds;
pub use self::desk::{
    Advice, Desk, Health, MachineHealth, ModelHealth, Need, Observation, PeerHealth, PlanHealth, Proposal,
    ReplicaHealth, Served, StageHealth, Unserved, WayHealth,
};
pub use self::entropy::session;
pub use self::forward::{Door, Forward, Miss, Opened, Ways};
pub use self::meter::Meter;
pub use self::routes::Api;
pub use self::server::{Server, Wire};
