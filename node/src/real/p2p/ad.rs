//! What a machine says of itself to its mesh, signed, so that it may be passed on.

use libp2p::Multiaddr;
use planner::fleet::Device;
use serde::{Deserialize, Serialize};

use super::identity::{Key, is_signed};
use super::invite::ADDRESSES_MAX;
use crate::ids::PeerId;

/// Longest name of a machine or a model, bytes.
const NAME_MAX: usize = 128;
/// Models that one machine may offer.
const MODELS_MAX: usize = 256;
/// Links that one machine may tell of.
const LINKS_MAX: usize = 512;
/// Longest ad, bytes.
pub(super) const AD_MAX: usize = 64 << 10;

const AD_CONTEXT: &[u8] = b"meshwright ad 1\0";

/// A digest of everything in a model's files but the weights.
pub type Fingerprint = [u8; 32];

/// A model on a machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name in plans and in the API.
    pub name: String,
    /// Machines whose files have the same hold the same model.
    pub fingerprint: Fingerprint,
}

/// What a machine has measured of its way to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// To whom.
    pub peer: PeerId,
    /// The least round trip seen, software of both ends included, microseconds.
    pub round_trip_us: f64,
    /// What a long transfer reached, bytes per second.
    pub bytes_per_s: f64,
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ad {
    /// Whose.
    pub peer: PeerId,
    /// Greater ones replace lesser ones.
    pub version: u64,
    /// What its owner calls it.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// What computes there.
    pub device: Device,
    /// What lies on its disk.
    pub models: Vec<Offer>,
    /// Its ways to others.
    pub links: Vec<Measured>,
}

/// Why an ad is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdError {
    /// Nobody, or somebody else, has signed it.
    #[error("its signature is not its owner's")]
    Signature,
    /// It is no ad.
    #[error("it cannot be read; its maker may run another version")]
    Unreadable,
    /// A field says what cannot be.
    #[error("its {0} cannot be")]
    Absurd(&'static str),
}

/// An ad as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    owner: PeerId,
    ad: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    /// Signs it.
    pub(super) fn new(ad: &Ad, key: &Key) -> Self {
        let bytes = postcard::to_allocvec(ad).expect("an ad has no maps or unknown lengths");
        let signature = key.sign(&[AD_CONTEXT, &bytes].concat());
        Self { owner: ad.peer, ad: bytes, signature }
    }

    /// What it says, if its owner says so and it makes sense.
    pub(super) fn open(&self) -> Result<Ad, AdError> {
        if self.ad.len() > AD_MAX {
            return Err(AdError::Absurd("length"));
        }
        if !is_signed(self.owner, &[AD_CONTEXT, &self.ad].concat(), &self.signature) {
            return Err(AdError::Signature);
        }
        let (ad, rest): (Ad, _) = postcard::take_from_bytes(&self.ad).map_err(|_| AdError::Unreadable)?;
        if !rest.is_empty() {
            return Err(AdError::Unreadable);
        }
        if ad.peer != self.owner {
            return Err(AdError::Signature);
        }
        ad.check()?;
        Ok(ad)
    }
}

impl Ad {
    fn check(&self) -> Result<(), AdError> {
        let short = |name: &str| name.len() <= NAME_MAX && !name.chars().any(char::is_control);
        if !short(&self.name) || self.name.is_empty() {
            return Err(AdError::Absurd("name"));
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(AdError::Absurd("number of addresses"));
        }
        if self.models.len() > MODELS_MAX || !self.models.iter().all(|model| short(&model.name)) {
            return Err(AdError::Absurd("list of models"));
        }
        let sound = |link: &Measured| is_rate(link.bytes_per_s) && is_amount(link.round_trip_us);
        if self.links.len() > LINKS_MAX || !self.links.iter().all(sound) {
            return Err(AdError::Absurd("list of links"));
        }
        if !(is_device(&self.device) && short(&self.device.id) && short(&self.device.name)) {
            return Err(AdError::Absurd("device"));
        }
        Ok(())
    }
}

/// Above zero, and no more than anything has.
fn is_rate(x: f64) -> bool {
    (1e-3..=1e18).contains(&x)
}

fn is_amount(x: f64) -> bool {
    (0.0..=1e12).contains(&x)
}

/// Whether the cost model can divide and compare with every figure.
fn is_device(device: &Device) -> bool {
    let rates = [device.bandwidth_bytes_per_s, device.flops, device.disk_bytes_per_s];
    let shares = [device.bandwidth_efficiency, device.flops_efficiency];
    let overheads = [device.layer_overhead_us, device.expert_overhead_us];
    device.memory_bytes < 1 << 50
        && rates.into_iter().all(is_rate)
        && shares.into_iter().all(|share| (1e-6..=10.0).contains(&share))
        && overheads.into_iter().all(is_amount)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn ad(key: &Key, version: u64) -> Ad {
        Ad {
            peer: key.peer(),
            version,
            name: format!("machine {version}"),
            addresses: vec!["/ip4/10.0.0.1/tcp/9338".parse().unwrap()],
            device: planner::fleet::catalog::device("rtx-4090").unwrap(),
            models: vec![Offer { name: "smol".into(), fingerprint: [1; 32] }],
            links: vec![Measured { peer: PeerId([3; 32]), round_trip_us: 900.0, bytes_per_s: 1e8 }],
        }
    }

    #[test]
    fn an_ad_is_its_owners_or_nobodys() {
        let (key, other) = (Key::generate(), Key::generate());
        let signed = Signed::new(&ad(&key, 1), &key);
        assert_eq!(signed.open(), Ok(ad(&key, 1)));
        assert_eq!(Signed::new(&ad(&key, 1), &other).open(), Err(AdError::Signature));
        let claimed = Signed { owner: other.peer(), ..Signed::new(&ad(&key, 1), &other) };
        assert_eq!(claimed.open(), Err(AdError::Signature));
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let key = Key::generate();
        let spoil: [fn(&mut Ad); 8] = [
            |ad| ad.device.flops = f64::NAN,
            |ad| ad.device.bandwidth_bytes_per_s = 0.0,
            |ad| ad.device.memory_bytes = u64::MAX,
            |ad| ad.name = "x".repeat(200),
            |ad| ad.name = "a\u{1b}[31m".into(),
            |ad| ad.links[0].bytes_per_s = f64::INFINITY,
            |ad| ad.links[0].round_trip_us = -1.0,
            |ad| ad.models = vec![Offer { name: String::new(), fingerprint: [0; 32] }; 300],
        ];
        for change in spoil {
            let mut ad = ad(&key, 1);
            change(&mut ad);
            assert!(matches!(Signed::new(&ad, &key).open(), Err(AdError::Absurd(_))), "{ad:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_are_an_ad_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let key = Key::from_seed([9; 32]);
            let signature = key.sign(&[AD_CONTEXT, &bytes].concat());
            let _ = Signed { owner: key.peer(), ad: bytes, signature }.open();
        }
    }
}
