//! How a member keeps itself informed: every period and bound. What depends on the size of the mesh is computed from it
//! here, so that what a member sends at rest does not.

use std::time::Duration;

use super::swim::Pace;

/// Periods and bounds. The defaults are for homes and small offices as well as for thousands of members over the
/// internet; a field says what goes wrong when it is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// One member is probed this often: most of what a member sends at rest. Shorter finds a crash sooner.
    pub probe_period: Duration,
    /// A direct answer that takes longer is asked for by others too. Must be shorter than the period.
    pub probe_timeout: Duration,
    /// How long a member that has answered neither may still say that it lives. Too short buries the slow.
    pub suspicion: Duration,
    /// In that time it is asked so often whether it lives. Fewer take a lost packet for an end, and believe liars.
    pub doubts: u32,
    /// Whoever lied more often than this of late is not believed on others: forged items count one, false words on others
    /// 0.4. Fewer take an honest mistake for a lie.
    pub lies: f64,
    /// A dead member is remembered this long: its late records must all have died out by then.
    pub tombstone: Duration,
    /// Members that news are sent to at once, and that are asked to probe for another.
    pub fanout: usize,
    /// While there are news, a few members hear of them this often.
    pub gossip_period: Duration,
    /// Bytes of a packet that carries several things. One item that is longer travels alone.
    pub packet_bytes: usize,
    /// Bytes of items that one request may bring.
    pub sync_bytes: usize,
    /// Two members whose digests differ wait for news that may be under way this long, ...
    pub settle: Duration,
    /// ... but compare what they know after this long, however much is changing.
    pub sync_latest: Duration,
    /// A member compares with another at most this often.
    pub sync_rest: Duration,
    /// A dead member, or one that was told to join by, is knocked at this often: so partitions heal.
    pub knock: Duration,
    /// Members a table may have, the dead ones included.
    pub members: usize,
    /// Load is told at most this often, ...
    pub state_rest: Duration,
    /// ... and this much later for each member of the mesh.
    pub state_rest_each: Duration,
    /// Demand is told at most this often, ...
    pub demand_rest: Duration,
    /// ... and this much later for each member: all of them together tell twice a second at most.
    pub demand_rest_each: Duration,
    /// Demand is told when what was told is off by more than this share.
    pub demand_share: f64,
    /// A coordinate is told this long after the start at the earliest, ...
    pub coordinate_first: Duration,
    /// ... and this much later for each member; later ones take twice as long each time.
    pub coordinate_first_each: Duration,
    /// A timer that is later than this means that this process stood still, not that others were silent.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let seconds = Duration::from_secs;
        Self {
            probe_period: millis(500),
            probe_timeout: millis(250),
            suspicion: millis(1_500),
            doubts: 4,
            lies: 2.0,
            tombstone: seconds(600),
            fanout: 3,
            gossip_period: millis(200),
            packet_bytes: 1_200,
            sync_bytes: 64 << 10,
            settle: seconds(1),
            sync_latest: seconds(4),
            sync_rest: millis(500),
            knock: seconds(5),
            members: 4_096,
            state_rest: seconds(1),
            state_rest_each: millis(10),
            demand_rest: seconds(5),
            demand_rest_each: millis(500),
            demand_share: 0.2,
            coordinate_first: seconds(10),
            coordinate_first_each: millis(300),
            stall: millis(1_000),
        }
    }
}

impl Config {
    /// How often an item or an update is passed on by each who hears it: `ln n + 3` copies miss about one member in
    /// twenty times `n`, and the digests find that one.
    pub fn copies(&self, members: usize) -> u8 {
        ((members.max(1) as f64).ln() + 3.0).ceil() as u8
    }

    pub(super) fn pace(&self, members: usize) -> Pace {
        Pace {
            probe_period: self.probe_period,
            probe_timeout: self.probe_timeout,
            suspicion: self.suspicion,
            tombstone: self.tombstone,
            fanout: self.fanout,
            copies: self.copies(members),
        }
    }

    pub(super) fn state_rest(&self, members: usize) -> Duration {
        self.state_rest + self.state_rest_each * members as u32
    }

    pub(super) fn coordinate_first(&self, members: usize) -> Duration {
        self.coordinate_first + self.coordinate_first_each * members as u32
    }

    pub(super) fn demand_rest(&self, members: usize) -> Duration {
        self.demand_rest + self.demand_rest_each * members as u32
    }
}
