//! What a world offers a node, and the doors a node is handed.

use crate::clock::Clock;
use crate::engine::Engine;
use crate::probe::Probe;
use crate::transport::Transport;

/// A network, a device, a clock and a listener that belong together.
pub trait World: 'static {
    /// The network.
    type Transport: Transport;
    /// The device.
    type Engine: Engine;
    /// The time.
    type Clock: Clock;
    /// The listener.
    type Probe: Probe;
}

/// All that a node is ever handed.
pub struct Doors<W: World> {
    /// Its network.
    pub transport: W::Transport,
    /// Its device.
    pub engine: W::Engine,
    /// Its time.
    pub clock: W::Clock,
    /// Who listens.
    pub probe: W::Probe,
    /// Its own seed, forked from the run's by the node's name.
    pub seed: u64,
}
