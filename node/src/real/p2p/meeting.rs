//! How members meet. On every connection each side opens a stream to the other and proves that it has the mesh's secret.
//! Whoever proves nothing is told why nobody talks to it, and cut off. What members have to tell each other goes over the
//! membership's own streams; this one stays open as long as they are connected.
//!
//! A guest proves the same and says that it only asks: its streams are closed when both have heard each other, so that
//! an idle connection ends by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWriteExt as _;
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::state::Shared;
use crate::clock::{Clock as _, TokioClock};
use crate::ids::PeerId;

/// The protocol of meetings.
pub(super) const MEETING: StreamProtocol = StreamProtocol::new("/meshwright/meeting/2");

/// How long a peer may take to prove that it belongs here.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Longest message, bytes.
const WORD_MAX: u32 = 4096;
/// How long one message may take to be taken.
const SEND_WITHIN: Duration = Duration::from_secs(20);

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Word {
    /// By whoever opens the stream, first.
    Hello { proof: Vec<u8> },
    /// The answer to a hello that proves nothing.
    Refused(String),
    /// The same as a hello, by who only asks.
    Guest { proof: Vec<u8> },
}

/// How a meeting ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    /// The stream or the connection is gone.
    #[error("the connection ended")]
    Gone,
    /// The other side turned this one away.
    #[error("{0}")]
    Refused(String),
    /// The other side did not keep to the protocol.
    #[error("it does not speak this protocol: {0}")]
    Garbage(&'static str),
}

async fn say<S: AsyncWrite + Unpin + Send>(
    clock: &TokioClock,
    stream: &mut S,
    word: &Word,
) -> Result<(), Ended> {
    let bytes = postcard::to_extend(word, vec![0; 4]).map_err(|_| Ended::Garbage("a word without length"))?;
    let mut bytes = bytes;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    let sending = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    match clock.timeout_at(clock.now().after(SEND_WITHIN), sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ended::Gone),
    }
}

async fn listen<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Word, Ended> {
    let length = stream.read_u32().await.map_err(|_| Ended::Gone)?;
    if length > WORD_MAX {
        return Err(Ended::Garbage("a message too long"));
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes).await.map_err(|_| Ended::Gone)?;
    if bytes.len() < length as usize {
        return Err(Ended::Gone);
    }
    understand(&bytes)
}

fn understand(bytes: &[u8]) -> Result<Word, Ended> {
    match postcard::take_from_bytes(bytes) {
        Ok((word, [])) => Ok(word),
        _ => Err(Ended::Garbage("a message that cannot be read")),
    }
}

/// Meets a connected peer: proves that this node belongs to the mesh. Ends with the connection.
pub(super) async fn greet(shared: Arc<Shared>, peer: PeerId) -> Ended {
    let opening = shared.within(HELLO_WITHIN, shared.open(peer, MEETING)).await;
    let Ok(Some(stream)) = opening else { return Ended::Garbage("it has no meeting protocol") };
    let (mut heard, mut said) = tokio::io::split(stream.compat());
    let proof = shared.mesh.proof(shared.me, peer);
    if let Err(ended) = say(&shared.clock, &mut said, &Word::Hello { proof }).await {
        return ended;
    }
    match listen(&mut heard).await {
        Ok(Word::Refused(why)) => Ended::Refused(why.chars().take(200).collect()),
        Ok(_) => Ended::Garbage("an answer that was not asked for"),
        Err(ended) => ended,
    }
}

/// The other half: hears a peer's proof, and waits for the end. Gives why it ended.
pub(super) async fn hear(shared: Arc<Shared>, peer: PeerId, stream: libp2p::Stream) -> Ended {
    let mut stream = stream.compat();
    let word = match shared.within(HELLO_WITHIN, listen(&mut stream)).await {
        Ok(Ok(word)) => word,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Garbage("no hello in time"),
    };
    let is_proof = |proof: &[u8]| shared.mesh.is_proof(peer, shared.me, proof);
    match word {
        Word::Hello { proof } if is_proof(&proof) => shared.admit(peer),
        Word::Guest { proof } if is_proof(&proof) => {
            shared.welcome(peer);
            let _ = shared.within(super::state::CLOSING, stream.get_mut().close()).await;
            return Ended::Gone;
        }
        Word::Hello { .. } | Word::Guest { .. } => {
            let why = "this mesh is closed, and the caller has no invite to it: ask a member for a token"
                .to_owned();
            let _ = say(&shared.clock, &mut stream, &Word::Refused(why)).await;
            let _ = shared.within(super::state::CLOSING, stream.get_mut().close()).await;
            return Ended::Refused("it has no invite to this mesh".into());
        }
        Word::Refused(_) => return Ended::Garbage("no hello"),
    }
    match listen(&mut stream).await {
        Ok(_) => Ended::Garbage("a second hello"),
        Err(ended) => ended,
    }
}

/// A guest's word to a member: its proof. Returns when the member has let it in, or is gone.
///
/// # Errors
/// Why it was turned away.
pub(super) async fn visit(clock: &TokioClock, proof: Vec<u8>, stream: libp2p::Stream) -> Result<(), Ended> {
    let mut stream = stream.compat();
    say(clock, &mut stream, &Word::Guest { proof }).await?;
    match clock.timeout_at(clock.now().after(HELLO_WITHIN), listen(&mut stream)).await {
        Ok(Ok(Word::Refused(why))) => Err(Ended::Refused(why.chars().take(200).collect())),
        Ok(Ok(_)) => Err(Ended::Garbage("an answer that was not asked for")),
        Ok(Err(Ended::Gone)) => Ok(()),
        Ok(Err(ended)) => Err(ended),
        Err(_) => Err(Ended::Garbage("no answer to a guest's word in time")),
    }
}

/// The proof that a peer sends over a stream that it has opened.
pub(super) async fn proof_of(clock: &TokioClock, stream: libp2p::Stream) -> Option<Vec<u8>> {
    let mut stream = stream.compat();
    match clock.timeout_at(clock.now().after(HELLO_WITHIN), listen(&mut stream)).await {
        Ok(Ok(Word::Hello { proof })) => Some(proof),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_a_word_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = understand(&bytes);
        }
    }

    #[tokio::test]
    async fn a_message_that_promises_too_much_is_not_waited_for() {
        let mut bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(listen(&mut bytes).await, Err(Ended::Garbage("a message too long")));
    }
}
