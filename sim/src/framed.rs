//! Frames on a byte stream: a length, then the frame as postcard writes it.

use node::transport::NetError;
use node::wire::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest frame that is read, bytes: a chunk's digests and a route fit many times.
const FRAME_BYTES_MAX: u32 = 16 << 20;

/// The next frame; `None` at the end of the stream.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(bytes: &mut R) -> Result<Option<Frame>, NetError> {
    let Ok(len) = bytes.read_u32().await else { return Ok(None) };
    if len > FRAME_BYTES_MAX {
        return Err(NetError::BadFrame(format!("{len} bytes, at most {FRAME_BYTES_MAX} are read")));
    }
    let mut frame = vec![0; len as usize];
    bytes.read_exact(&mut frame).await.map_err(|_| NetError::Closed)?;
    postcard::from_bytes(&frame).map(Some).map_err(|error| NetError::BadFrame(error.to_string()))
}

/// Writes one frame.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(bytes: &mut W, frame: &Frame) -> Result<(), NetError> {
    let frame = postcard::to_allocvec(frame).map_err(|error| NetError::BadFrame(error.to_string()))?;
    bytes.write_u32(frame.len() as u32).await.map_err(|_| NetError::Closed)?;
    bytes.write_all(&frame).await.map_err(|_| NetError::Closed)
}
