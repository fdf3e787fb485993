//! What a machine without a model's files needs to speak for it: everything in them but the weights. Of each file its
//! length travels and what stands before the first tensor; the receiver puts that into files of the same length that are
//! otherwise empty, and checks that they have the fingerprint it asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::StreamProtocol;
use planner::model::gguf::GgufFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::arriving::for_members;
use super::state::Shared;
use super::ways::Arrivals;
use crate::ids::PeerId;
use crate::membership::Fingerprint;
use crate::real::gguf::{self, Part, fingerprint};

/// The protocol of headers.
pub(super) const HEADERS: StreamProtocol = StreamProtocol::new("/meshwright/header/1");

/// Longest head of one file, bytes: vocabularies of a quarter million tokens take eight million.
const HEAD_MAX: u64 = 128 << 20;
/// Most files of one model.
const PARTS_MAX: u32 = 1024;
/// How long all of it may take.
const FETCH_WITHIN: Duration = Duration::from_secs(120);
/// Machines that may be asking at once.
const ASKING_MAX: usize = 8;

/// Where this node's models lie, by fingerprint.
pub(super) type Files = Arc<Mutex<BTreeMap<Fingerprint, Vec<PathBuf>>>>;

/// Why a header did not come.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// No connection, or it broke, or took too long.
    #[error("the machine with the model does not answer")]
    Unreachable,
    /// It has no such model any more.
    #[error("the machine no longer offers the model")]
    Gone,
    /// What came is another model, or none.
    #[error("what came is not the model that was offered")]
    Other,
    /// This disk.
    #[error("cannot keep the model's header in {}: {cause}; make room there, or give another folder by --home", folder.display())]
    Disk {
        /// Where.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Answers members that ask.
pub(super) async fn answer(shared: Arc<Shared>, streams: Arrivals, files: Files) {
    let send = |mut stream| {
        let files = Arc::clone(&files);
        async move { send(&mut stream, &files).await }
    };
    for_members(shared, streams, ASKING_MAX, FETCH_WITHIN, send).await;
}

/// The parts of a model, if it can be opened.
fn parts(paths: &[PathBuf]) -> Option<Vec<Part>> {
    gguf::parts(&GgufFile::open(paths.first()?).ok()?).ok()
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, files: &Files) -> io::Result<()> {
    let mut wanted: Fingerprint = [0; 32];
    stream.read_exact(&mut wanted).await?;
    let paths = files.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted).cloned();
    let found = tokio::task::spawn_blocking(move || parts(&paths?)).await.ok().flatten();
    let found = found.unwrap_or_default();
    stream.write_u32(found.len() as u32).await?;
    for Part { path, length, head } in found {
        stream.write_u64(length).await?;
        stream.write_u64(head).await?;
        let mut part = tokio::fs::File::open(path).await?.take(head);
        tokio::io::copy(&mut part, stream).await?;
    }
    stream.flush().await?;
    stream.shutdown().await
}

/// Fetches the header of a model that `peer` offers into `folder`, unless it is there. Gives the first file.
pub(super) async fn fetch(
    shared: &Shared,
    peer: PeerId,
    wanted: Fingerprint,
    folder: &Path,
) -> Result<PathBuf, HeaderError> {
    let folder = folder.join(data_encoding::HEXLOWER.encode(&wanted[..16]));
    if let Some(first) = kept(&folder, &wanted) {
        return Ok(first);
    }
    let all = async {
        let stream = shared.open(peer, HEADERS).await.ok_or(HeaderError::Unreachable)?;
        receive(&mut stream.compat(), wanted, &folder).await
    };
    let came = shared.within(FETCH_WITHIN, all).await.unwrap_or(Err(HeaderError::Unreachable));
    let came = came.inspect_err(|_| {
        // Parts of a header are of no use.
        let _ = std::fs::remove_dir_all(&folder);
    })?;
    let kept_parts = parts(&[folder.join(part_name(0, came.len() as u32))]).unwrap_or_default();
    let head = |number: usize| kept_parts.get(number).map_or(0, |part| part.head);
    let weights = came.iter().enumerate().map(|(number, bytes)| bytes.saturating_sub(head(number))).sum();
    shared.received.count_files(came.iter().sum(), weights);
    kept(&folder, &wanted).ok_or_else(|| {
        let _ = std::fs::remove_dir_all(&folder);
        HeaderError::Other
    })
}

/// Gives the bytes that came of each file.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    wanted: Fingerprint,
    folder: &Path,
) -> Result<Vec<u64>, HeaderError> {
    let gone = |_| HeaderError::Unreachable;
    stream.write_all(&wanted).await.map_err(gone)?;
    stream.flush().await.map_err(gone)?;
    let parts = stream.read_u32().await.map_err(gone)?;
    if parts == 0 {
        return Err(HeaderError::Gone);
    }
    if parts > PARTS_MAX {
        return Err(HeaderError::Other);
    }
    let disk = |cause| HeaderError::Disk { folder: folder.into(), cause };
    std::fs::create_dir_all(folder).map_err(disk)?;
    let mut came = Vec::new();
    for number in 0..parts {
        let length = stream.read_u64().await.map_err(gone)?;
        let head = stream.read_u64().await.map_err(gone)?;
        if head > HEAD_MAX || head > length {
            return Err(HeaderError::Other);
        }
        let mut bytes = Vec::new();
        (&mut *stream).take(head).read_to_end(&mut bytes).await.map_err(gone)?;
        if (bytes.len() as u64) < head {
            return Err(HeaderError::Unreachable);
        }
        let path = folder.join(part_name(number, parts));
        std::fs::write(&path, &bytes).map_err(disk)?;
        // Nothing is stored for what is left out.
        let file = File::options().write(true).open(&path).map_err(disk)?;
        file.set_len(length).map_err(disk)?;
        came.push(head);
    }
    Ok(came)
}

/// As parts of split models are called, so that they are found from the first.
fn part_name(number: u32, parts: u32) -> String {
    if parts == 1 { "header.gguf".into() } else { format!("header-{:05}-of-{parts:05}.gguf", number + 1) }
}

/// The first file in the folder, if the files there are the model.
fn kept(folder: &Path, wanted: &Fingerprint) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let first = files.filter(|path| path.extension().is_some_and(|kind| kind == "gguf")).min()?;
    let found = fingerprint(&GgufFile::open(&first).ok()?).ok()?;
    (found == *wanted).then_some(first)
}
