//! Frames on a byte stream: four bytes of length, big-endian, then the frame in postcard.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::NetError;
use crate::wire::Frame;

/// Memory taken for a frame before its bytes are there. A peer that promises much and sends nothing gets no more.
const FIRST_RESERVE: usize = 64 << 10;

/// Encodes a frame with its length in front, in one buffer.
///
/// # Errors
/// [`NetError::BadFrame`] when it is longer than a length can say.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, NetError> {
    let bytes = postcard::to_extend(frame, vec![0; 4]).map_err(bad)?;
    let length = u32::try_from(bytes.len() - 4).map_err(bad)?;
    let mut bytes = bytes;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Decodes a frame without its length.
///
/// # Errors
/// [`NetError::BadFrame`] when the bytes are no frame, or more than one.
pub fn decode(bytes: &[u8]) -> Result<Frame, NetError> {
    let (frame, rest) = postcard::take_from_bytes(bytes).map_err(bad)?;
    if rest.is_empty() {
        Ok(frame)
    } else {
        Err(NetError::BadFrame(format!("{} bytes after the frame", rest.len())))
    }
}

/// Writes one frame and flushes.
///
/// # Errors
/// [`NetError::Closed`] when the stream is broken, [`NetError::BadFrame`] when the frame cannot be encoded.
pub async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> Result<(), NetError> {
    write_encoded(stream, &encode(frame)?).await
}

/// Writes what [`encode`] made, and flushes.
///
/// # Errors
/// [`NetError::Closed`] when the stream is broken.
pub async fn write_encoded<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> Result<(), NetError> {
    stream.write_all(bytes).await.map_err(|_| NetError::Closed)?;
    stream.flush().await.map_err(|_| NetError::Closed)
}

/// Reads one frame of at most `max_bytes`. `None` when the stream ended between two frames.
///
/// # Errors
/// [`NetError::Closed`] when it ended or broke within one, [`NetError::BadFrame`] when what came is no frame.
pub async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    max_bytes: u32,
) -> Result<Option<Frame>, NetError> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await.map_err(|_| NetError::Closed)? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await.map_err(|_| NetError::Closed)?;
    let length = u32::from_be_bytes(length);
    if length > max_bytes {
        return Err(NetError::BadFrame(format!("{length} bytes announced, at most {max_bytes} are taken")));
    }
    let mut bytes = Vec::with_capacity((length as usize).min(FIRST_RESERVE));
    let read = stream.take(u64::from(length)).read_to_end(&mut bytes).await.map_err(|_| NetError::Closed)?;
    if read < length as usize { Err(NetError::Closed) } else { decode(&bytes).map(Some) }
}

fn bad(error: impl std::fmt::Display) -> NetError {
    NetError::BadFrame(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use bytes::Bytes;
    use planner::plan::{Epoch, LayerRange};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Sampling;
    use crate::ids::{Attempt, PeerId, PlanId, SessionId, Token};
    use crate::wire::{Control, Nack, Payload, Route, Step, StepInput};

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn payload() -> impl Strategy<Value = Payload> {
        prop_oneof![
            vec(any::<u8>(), 0..200).prop_map(|b| Payload::Real(Bytes::from(b))),
            (any::<u64>(), vec(any::<u64>(), 0..20))
                .prop_map(|(len, digests)| Payload::Virtual { len, digests }),
        ]
    }

    fn route() -> impl Strategy<Value = Route> {
        (any::<u64>(), ".{0,12}", vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..5)).prop_map(
            |(epoch, model, stages)| Route {
                epoch: Epoch(epoch),
                model,
                head: PeerId::from_index(1),
                head_life: epoch,
                stages: stages
                    .into_iter()
                    .map(|(p, a, b)| (PeerId::from_index(p), LayerRange::new(a, b)))
                    .collect(),
            },
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        let input = prop_oneof![
            vec(any::<u32>().prop_map(Token), 0..50).prop_map(StepInput::Tokens),
            payload().prop_map(StepInput::Hidden),
        ];
        let sampling = proptest::option::of(
            (0.0f32..2.0, any::<u64>()).prop_map(|(temperature, seed)| Sampling::drawn(temperature, seed)),
        );
        (any::<(u64, u32, u16, u32, u32)>(), proptest::option::of(route()), input, sampling).prop_map(
            |((session, attempt, stage, start, count), route, input, sample)| Step {
                session: SessionId(session),
                attempt: Attempt(attempt),
                stage,
                route,
                start,
                count,
                input,
                sample,
            },
        )
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            vec(step(), 0..4).prop_map(Frame::Steps),
            any::<(u64, u32, u32, u32)>().prop_map(|(s, a, position, t)| Frame::Token {
                session: SessionId(s),
                attempt: Attempt(a),
                position,
                sampled: Token(t).into(),
            }),
            any::<(u64, u32, u32, bool)>().prop_map(|(s, a, known, silent)| match silent {
                true => Frame::Abandon { session: SessionId(s), attempt: Attempt(a), silent },
                false => Frame::Nack {
                    session: SessionId(s),
                    attempt: Attempt(a),
                    why: Nack::Superseded(Attempt(known)),
                },
            }),
            any::<u64>().prop_map(|nonce| Frame::Control(Control::Ping { nonce })),
            (any::<u64>(), vec(any::<(u32, u64)>(), 0..9)).prop_map(|(epoch, replicas)| {
                let id = PlanId { epoch: Epoch(epoch), maker: PeerId::from_index(2), life: epoch };
                Frame::Control(Control::Serving { id, replicas })
            }),
        ]
    }

    proptest! {
        #[test]
        fn any_frame_survives_any_chopping(frames in vec(frame(), 1..4), chunk in 1usize..40) {
            let mut bytes = Vec::new();
            for frame in &frames {
                bytes.extend(encode(frame).unwrap());
            }
            let got = block_on(async {
                let (mut near, mut far) = tokio::io::duplex(chunk);
                let writer = async {
                    near.write_all(&bytes).await.unwrap();
                    drop(near);
                };
                let reader = async {
                    let mut got = Vec::new();
                    while let Some(frame) = read_frame(&mut far, 1 << 20).await.unwrap() {
                        got.push(frame);
                    }
                    got
                };
                tokio::join!(writer, reader).1
            });
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn garbage_is_an_error_or_a_frame_and_never_a_panic(bytes in vec(any::<u8>(), 0..400)) {
            let mut stream = bytes.as_slice();
            while let Ok(Some(_)) = block_on(read_frame(&mut stream, 1 << 16)) {}
        }

        #[test]
        fn a_frame_cut_short_is_no_frame(frame in frame(), keep in 0.0f64..1.0) {
            let bytes = encode(&frame).unwrap();
            let kept = (((bytes.len() - 1) as f64) * keep) as usize;
            let got = block_on(read_frame(&mut &bytes[..kept], 1 << 20));
            prop_assert!(matches!(got, Ok(None) | Err(NetError::Closed)), "{:?}", got);
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_read() {
        let mut bytes = u32::MAX.to_be_bytes().to_vec();
        bytes.push(0);
        let got = block_on(read_frame(&mut bytes.as_slice(), 1 << 20));
        assert!(matches!(got, Err(NetError::BadFrame(_))), "{got:?}");
    }
}
