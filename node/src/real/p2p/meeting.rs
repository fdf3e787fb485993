//! How members meet. On every connection each side opens a stream to the other, proves that it has the mesh's secret, and,
//! once the other has done so too, tells what it knows of the mesh and from then on what is new. Whoever proves nothing is
//! told why nobody talks to it, and cut off.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncWriteExt as _;
use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::ad::{AD_MAX, Signed};
use super::roster::Known;
use super::state::Shared;
use crate::ids::PeerId;

/// The protocol of meetings.
pub(super) const MEETING: StreamProtocol = StreamProtocol::new("/meshwright/meeting/1");

/// How long a peer may take to prove that it belongs here.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Ads in one message.
const ADS_AT_ONCE: usize = 16;
/// Longest message, bytes.
const WORD_MAX: u32 = (ADS_AT_ONCE * (AD_MAX + 1024)) as u32;
/// How long one message may take to be taken.
const SEND_WITHIN: Duration = Duration::from_secs(20);

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Word {
    /// By whoever opens the stream, first.
    Hello { proof: Vec<u8> },
    /// What it knows of members.
    Ads(Vec<Signed>),
    /// The answer to a hello that proves nothing.
    Refused(String),
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
    shared: &Shared,
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
    match shared.within(SEND_WITHIN, sending).await {
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
        Ok((Word::Ads(ads), _)) if ads.len() > ADS_AT_ONCE => Err(Ended::Garbage("too many ads at once")),
        Ok((word, [])) => Ok(word),
        _ => Err(Ended::Garbage("a message that cannot be read")),
    }
}

/// Meets a connected peer: proves that this node belongs to the mesh, then tells what is new. Ends with the connection.
pub(super) async fn greet(shared: Arc<Shared>, peer: PeerId) -> Ended {
    let opening = shared.within(HELLO_WITHIN, shared.open(peer, MEETING)).await;
    let Ok(Some(stream)) = opening else { return Ended::Garbage("it has no meeting protocol") };
    let (mut heard, mut said) = tokio::io::split(stream.compat());
    let proof = shared.mesh.proof(shared.me, peer);
    if let Err(ended) = say(&shared, &mut said, &Word::Hello { proof }).await {
        return ended;
    }
    let telling = tell(&shared, &mut said, peer);
    tokio::select! {
        biased;
        word = listen(&mut heard) => match word {
            Ok(Word::Refused(why)) => Ended::Refused(why.chars().take(200).collect()),
            Ok(_) => Ended::Garbage("an answer that was not asked for"),
            Err(ended) => ended,
        },
        ended = telling => ended,
    }
}

async fn tell<S: AsyncWrite + Unpin + Send>(shared: &Shared, stream: &mut S, peer: PeerId) -> Ended {
    let mut state = shared.state.subscribe();
    if state.wait_for(|state| state.members.contains(&peer)).await.is_err() {
        return Ended::Gone;
    }
    let mut roster = shared.roster.subscribe();
    let mut told = Known::new();
    loop {
        let (news, known) = {
            let roster = roster.borrow_and_update();
            (roster.news(&told), roster.known())
        };
        for some in news.chunks(ADS_AT_ONCE) {
            if let Err(ended) = say(shared, stream, &Word::Ads(some.to_vec())).await {
                return ended;
            }
        }
        told = known;
        if roster.changed().await.is_err() {
            return Ended::Gone;
        }
    }
}

/// The other half: hears a peer's proof, then its news. Gives why it ended.
pub(super) async fn hear(shared: Arc<Shared>, peer: PeerId, stream: libp2p::Stream) -> Ended {
    let mut stream = stream.compat();
    match shared.within(HELLO_WITHIN, listen(&mut stream)).await {
        Ok(Ok(Word::Hello { proof })) if shared.mesh.is_proof(peer, shared.me, &proof) => shared.admit(peer),
        Ok(Ok(Word::Hello { .. })) => {
            let why = "this mesh is closed, and the caller has no invite to it: ask a member for a token"
                .to_owned();
            let _ = say(&shared, &mut stream, &Word::Refused(why)).await;
            let _ = shared.within(super::state::CLOSING, stream.get_mut().close()).await;
            return Ended::Refused("it has no invite to this mesh".into());
        }
        Ok(Ok(_)) => return Ended::Garbage("no hello"),
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Garbage("no hello in time"),
    }
    loop {
        match listen(&mut stream).await {
            Ok(Word::Ads(ads)) => learn(&shared, peer, ads),
            Ok(_) => return Ended::Garbage("a second hello"),
            Err(ended) => return ended,
        }
    }
}

fn learn(shared: &Shared, from: PeerId, ads: Vec<Signed>) {
    let mut faulty = Vec::new();
    shared.roster.send_if_modified(|roster| {
        let mut changed = false;
        for signed in ads {
            match roster.hear(signed) {
                Ok(news) => changed |= news,
                Err(why) => faulty.push(why),
            }
        }
        changed
    });
    for why in faulty {
        shared.trouble(format!("an ad from {from:?}"), why.to_string());
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
