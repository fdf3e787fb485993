//! Which way to a peer is used where there are two: the lower of two members measures both and decides, and tells the
//! other what it found, so that both use the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::identity::{our_name, their_name};
use super::state::Shared;
use super::swarm::Order;
use super::ways::{Arrivals, Way};
use crate::ids::PeerId;

/// The protocol of decisions.
pub(super) const CHOOSING: StreamProtocol = StreamProtocol::new("/meshwright/choosing/1");

/// A way takes the place of the one in use when a frame takes less time over it by this share, ...
const SOONER: f64 = 0.15;
/// ... or, where frames take about the same, when it carries more by this share. What is less would flap.
const WIDER: f64 = 0.25;
/// Longest decision, bytes.
const DECISION_MAX: u16 = 256;
/// How long the other side may take to agree.
const AGREE_WITHIN: Duration = Duration::from_secs(5);

/// What was measured of a way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// A few bytes there and one back, at best, microseconds.
    pub round_trip_us: f64,
    /// As many bytes as a token's activations there and back, in the middle, microseconds.
    pub frame_us: f64,
    /// What a long transfer reached, bytes per second.
    pub bytes_per_s: f64,
}

impl Figures {
    fn is_sound(&self) -> bool {
        [self.round_trip_us, self.frame_us, self.bytes_per_s].iter().all(|x| x.is_finite() && *x >= 0.0)
    }

    fn is_better_than(&self, used: &Self) -> bool {
        let near = self.frame_us < used.frame_us * (1.0 + SOONER);
        let sooner = self.frame_us < used.frame_us * (1.0 - SOONER);
        sooner || (near && self.bytes_per_s > used.bytes_per_s * (1.0 + WIDER))
    }
}

/// What was measured of each way.
pub(super) type Both = BTreeMap<Way, Figures>;

/// The better way: the one in use, unless the other is clearly better.
pub(super) fn better(used: Way, measured: &Both) -> Way {
    match (measured.get(&used), measured.get(&used.other())) {
        (Some(here), Some(there)) if there.is_better_than(here) => used.other(),
        (None, Some(_)) => used.other(),
        _ => used,
    }
}

/// Tells the other side which way to use, over that way. Gives whether it agreed.
pub(super) async fn tell(shared: &Shared, peer: PeerId, way: Way, measured: &Both) -> bool {
    let telling = async {
        let mut stream = shared.doors.open(their_name(peer)?, way, CHOOSING).await?.compat();
        let bytes = postcard::to_allocvec(measured).ok()?;
        stream.write_u16(bytes.len() as u16).await.ok()?;
        stream.write_all(&bytes).await.ok()?;
        stream.flush().await.ok()?;
        stream.read_u8().await.ok()
    };
    matches!(shared.within(AGREE_WITHIN, telling).await, Ok(Some(_)))
}

/// Agrees to what lower members have decided. A decision comes over the way that it is for.
pub(super) async fn agree(shared: Arc<Shared>, mut streams: Arrivals, order: mpsc::Sender<Order>) {
    while let Some((peer, way, stream)) = streams.next().await {
        let Some(peer) = our_name(&peer).filter(|peer| *peer < shared.me && shared.is_member(*peer)) else {
            continue;
        };
        let (shared, order) = (Arc::clone(&shared), order.clone());
        tokio::spawn(async move {
            let mut stream = stream.compat();
            let agreeing = async {
                let measured = read(&mut stream).await?;
                shared.use_way(peer, way, measured, &order).await;
                stream.write_u8(1).await.ok()?;
                stream.flush().await.ok()
            };
            let _ = shared.within(AGREE_WITHIN, agreeing).await;
        });
    }
}

async fn read<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Option<Both> {
    let length = stream.read_u16().await.ok().filter(|length| *length <= DECISION_MAX)?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.ok()?;
    understand(&bytes)
}

fn understand(bytes: &[u8]) -> Option<Both> {
    let (measured, rest): (Both, _) = postcard::take_from_bytes(bytes).ok()?;
    (rest.is_empty() && measured.values().all(Figures::is_sound)).then_some(measured)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figures(frame_us: f64, bytes_per_s: f64) -> Figures {
        Figures { round_trip_us: 50.0, frame_us, bytes_per_s }
    }

    #[test]
    fn the_way_in_use_stays_unless_the_other_is_clearly_better() {
        let chosen = |tcp, quic| {
            let measured = Both::from([(Way::Tcp, tcp), (Way::Quic, quic)]);
            [better(Way::Tcp, &measured), better(Way::Quic, &measured)]
        };
        let base = figures(1000.0, 1e8);
        assert_eq!(chosen(base, base), Way::ALL);
        assert_eq!(chosen(base, figures(900.0, 1.1e8)), Way::ALL, "it would flap");
        assert_eq!(chosen(base, figures(800.0, 1e7)), [Way::Quic; 2], "frames decide first");
        assert_eq!(chosen(base, figures(1100.0, 1.5e8)), [Way::Quic; 2], "then the rate");
        assert_eq!(chosen(base, figures(1500.0, 9e8)), [Way::Tcp; 2]);
        assert_eq!(
            better(Way::Tcp, &Both::from([(Way::Quic, base)])),
            Way::Quic,
            "only one could be measured"
        );
        assert_eq!(better(Way::Tcp, &Both::new()), Way::Tcp);
    }

    proptest! {
        #[test]
        fn bytes_are_a_decision_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(measured) = understand(&bytes) {
                prop_assert!(measured.values().all(Figures::is_sound));
            }
        }
    }
}
