//! What a member says of itself, signed by it, so that anybody may pass it on and nobody can change it.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bytes::{Reader, Writer};
use super::record::{Profile, State};
use crate::demand::Report;
use crate::ids::PeerId;

/// Longest body of an item, bytes: a profile with all the models it may name.
pub const BODY_MAX: usize = 8 << 10;

/// Bytes of an item beside its body, at most.
pub(super) const ITEM_OVERHEAD: usize = 32 + 1 + 9 + 5 + 2 + 64;

const CONTEXT: &[u8] = b"meshwright item 1\0";

/// One run of a process, and how often it was taken for dead in that run. Later ones replace earlier ones: a restart is
/// never mistaken for what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Life(pub(super) u64);

impl Life {
    /// The life of a process that began at `start`: a number that grows from run to run, such as the milliseconds since
    /// 1970. Only its lower 48 bits count.
    pub fn new(start: u64) -> Self {
        Self(start << 16)
    }

    /// The number it was made from: the same for all revivals of one run.
    pub fn start(self) -> u64 {
        self.0 >> 16
    }

    /// The same run, after others took it for dead.
    #[must_use]
    pub(super) fn revived(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Sixteen bits that tell neighbouring lives apart.
    pub(super) fn tag(self) -> u16 {
        (mix(self.0) >> 48) as u16
    }
}

/// What an item is about. Each has a version of its own, so that what changes often stays small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Name, addresses, devices, models on disk: changes seldom.
    Profile,
    /// What it serves and holds, how busy it is, where it is in the network: changes often.
    State,
    /// Which models it was asked for, and how often.
    Demand,
}

/// How many topics there are.
pub(super) const TOPICS: usize = 3;

impl Topic {
    /// All of them, in order.
    pub const ALL: [Self; TOPICS] = [Self::Profile, Self::State, Self::Demand];

    pub(super) fn index(self) -> usize {
        self as usize
    }

    fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

/// Greater ones replace lesser ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// In which life it was said.
    pub life: Life,
    /// Counts from one in each life.
    pub sequence: u32,
}

impl Version {
    /// The sequence of a member's last word in a life: nothing can come after it, so whoever has it knows from the member
    /// itself that this life is over.
    pub(super) const LAST: u32 = u32::MAX;

    pub(super) fn is_last(self) -> bool {
        self.sequence == Self::LAST
    }
}

/// An item as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose.
    pub owner: PeerId,
    /// What of it.
    pub topic: Topic,
    /// Which.
    pub version: Version,
    /// What it says, at most [`BODY_MAX`] bytes.
    pub body: Box<[u8]>,
    /// The owner's signature of all that.
    pub signature: [u8; 64],
}

/// What an item says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// What it is.
    Profile(Profile),
    /// What it does.
    State(State),
    /// What it is asked for.
    Demand(Report),
}

/// An item whose signature and content are right.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// As it travels.
    pub item: Item,
    /// What it says.
    pub content: Content,
}

/// Why an item is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Nobody, or somebody else, has signed it.
    #[error("its signature is not its owner's")]
    Signature,
    /// It cannot be read.
    #[error("it cannot be read; its maker may run another version")]
    Unreadable,
    /// It says what cannot be.
    #[error("its {0} cannot be")]
    Absurd(&'static str),
}

/// Keys and signatures: Ed25519 between real machines, something cheap in a simulation.
pub trait Trust {
    /// This member's signature.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Whether `by` has signed that.
    fn is_signed(&self, by: PeerId, message: &[u8], signature: &[u8; 64]) -> bool;

    /// Believes an item, or says why not. A simulation of many members in one memory may share what it gives.
    ///
    /// # Errors
    /// The signature is not its owner's, or the content cannot be.
    fn open(&self, item: Item) -> Result<Arc<Known>, ItemError> {
        if !self.is_signed(item.owner, &item.message(), &item.signature) {
            return Err(ItemError::Signature);
        }
        let content = item.read()?;
        Ok(Arc::new(Known { item, content }))
    }
}

impl Item {
    /// What is signed.
    pub fn message(&self) -> Vec<u8> {
        let mut writer = Writer(CONTEXT.to_vec());
        self.write_signed(&mut writer);
        writer.0
    }

    /// What it says.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub fn read(&self) -> Result<Content, ItemError> {
        Ok(match self.topic {
            Topic::Profile => Content::Profile(Profile::checked(parse(&self.body)?)?),
            Topic::State => Content::State(State::checked(parse(&self.body)?)?),
            Topic::Demand => Content::Demand(Report::checked(parse(&self.body)?).map_err(ItemError::Absurd)?),
        })
    }

    fn write_signed(&self, writer: &mut Writer) {
        writer.0.extend_from_slice(&self.owner.0);
        writer.byte(self.topic as u8);
        writer.number(self.version.life.0);
        writer.number(u64::from(self.version.sequence));
        writer.sized(&self.body);
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.write_signed(writer);
        writer.0.extend_from_slice(&self.signature);
    }

    pub(super) fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            owner: PeerId(reader.array()?),
            topic: Topic::from_index(reader.byte()?)?,
            version: Version { life: Life(reader.number()?), sequence: reader.number_u32()? },
            body: reader.sized(BODY_MAX)?.into(),
            signature: reader.array()?,
        })
    }

    /// Bytes it takes in a packet, at most.
    pub(super) fn wire_len(&self) -> usize {
        self.body.len() + ITEM_OVERHEAD
    }
}

impl Content {
    pub(super) fn topic(&self) -> Topic {
        match self {
            Content::Profile(_) => Topic::Profile,
            Content::State(_) => Topic::State,
            Content::Demand(_) => Topic::Demand,
        }
    }

    /// `None` when it takes more than an item may.
    pub(super) fn body(&self) -> Option<Box<[u8]>> {
        let body = match self {
            Content::Profile(profile) => written(profile),
            Content::State(state) => written(state),
            Content::Demand(report) => written(report),
        };
        Some(body.into_boxed_slice()).filter(|body| body.len() <= BODY_MAX)
    }
}

fn written(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data goes to memory")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ItemError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(ItemError::Unreadable),
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
