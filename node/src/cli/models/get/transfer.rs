//! One file from the Hub to the disk: under another name until it is whole and its digest is right.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::choice::Remote;
use super::hub::Hub;
use super::refusal::GetError;

/// Bytes at a time.
const PIECE: usize = 256 << 10;
/// Pause before the first further try; each one after it is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So much must come for a broken transfer to count as one that gets on.
const PROGRESS: u64 = 1 << 20;

/// A file of a repository, to be fetched.
pub(super) struct Transfer<'a> {
    pub(super) hub: &'a Hub,
    pub(super) repo: &'a str,
    pub(super) commit: &'a str,
    pub(super) remote: &'a Remote,
    /// Further tries after a transfer that broke and brought next to nothing.
    pub(super) retries: u32,
    pub(super) bar: &'a ProgressBar,
}

/// A file that is there and right.
#[derive(Debug, Serialize)]
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Of what is on the disk.
    pub(super) sha256: String,
    /// Whether that is what the repository says; else it says nothing, and only the length was checked.
    pub(super) verified: bool,
    /// Bytes that crossed the network now.
    pub(super) fetched_bytes: u64,
}

/// What came of a file so far.
struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    have: u64,
}

/// Where a file is kept until it is whole: its digest is in the name, so that what came of another version is not gone on
/// with.
pub(super) fn partial_path(folder: &Path, remote: &Remote) -> PathBuf {
    let version =
        remote.sha256.map_or_else(|| "unnamed".into(), |sum| data_encoding::HEXLOWER.encode(&sum[..4]));
    folder.join(format!("{}.{version}.partial", remote.name()))
}

impl Transfer<'_> {
    /// Fetches it into `folder`, goes on where an earlier try ended, and checks it. A file that is there already is only
    /// checked.
    ///
    /// # Errors
    /// [`GetError`]; what came is kept for the next time, unless it is wrong.
    pub(super) fn run(&self, folder: &Path) -> Result<Fetched, GetError> {
        let target = folder.join(self.remote.name());
        if target.exists() {
            return self.there(target);
        }
        let mut partial = Partial::open(partial_path(folder, self.remote), self)?;
        // Another process may have ended it while this one waited to open it.
        if target.exists() {
            return self.there(target);
        }
        let (fetched_bytes, theirs) = self.receive(&mut partial)?;
        partial.finish(self, target, theirs, fetched_bytes)
    }

    /// Bytes that came now, and the digest that they must have.
    fn receive(&self, partial: &mut Partial) -> Result<(u64, Option<[u8; 32]>), GetError> {
        let (mut fetched, mut theirs) = (0, self.remote.sha256);
        let (mut failures, mut mark) = (0, partial.have);
        while partial.have < self.remote.bytes {
            let before = partial.have;
            let ended = self.attempt(partial, &mut theirs, &mut fetched);
            let Err(why) = ended else { continue };
            if !why.is_passing() {
                return Err(why);
            }
            if partial.have.max(before) >= mark + PROGRESS {
                (failures, mark) = (0, partial.have);
            }
            if failures >= self.retries {
                return Err(self.broken(partial, why));
            }
            std::thread::sleep((PAUSE * 2u32.saturating_pow(failures)).min(PAUSE_MAX));
            failures += 1;
        }
        Ok((fetched, theirs))
    }

    /// One request, until its bytes end.
    fn attempt(
        &self,
        partial: &mut Partial,
        theirs: &mut Option<[u8; 32]>,
        fetched: &mut u64,
    ) -> Result<(), GetError> {
        let opened = self.hub.open(self.repo, self.commit, &self.remote.path, partial.have)?;
        *theirs = theirs.or(opened.sha256);
        if opened.from != partial.have {
            // The server begins elsewhere than it was asked to: from the start, or before.
            partial.back_to(opened.from, self)?;
        }
        let mut body = opened.body.into_reader();
        let mut piece = vec![0; PIECE];
        let broken = |why: String, partial: &Partial| GetError::Broken {
            url: opened.url.clone(),
            why,
            partial: partial.path.clone(),
            have: partial.have,
            bytes: self.remote.bytes,
        };
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) if partial.have < self.remote.bytes => {
                    return Err(broken("the connection ended early".into(), partial));
                }
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
                Err(cause) => return Err(broken(format!("the transfer broke ({cause})"), partial)),
            };
            if partial.have + count as u64 > self.remote.bytes {
                let why = format!("more comes than the {} bytes of the file", self.remote.bytes);
                return Err(GetError::Unsound { url: opened.url, why });
            }
            partial.take(&piece[..count], self)?;
            *fetched += count as u64;
        }
    }

    /// The last failure, with what is kept.
    fn broken(&self, partial: &Partial, why: GetError) -> GetError {
        if matches!(why, GetError::Broken { .. }) || partial.have == 0 {
            return why;
        }
        let url = format!("{} of {}", self.remote.path, self.repo);
        let (have, bytes) = (partial.have, self.remote.bytes);
        GetError::Broken { url, why: why.to_string(), partial: partial.path.clone(), have, bytes }
    }

    /// A file of that name is there: is it the one?
    fn there(&self, path: PathBuf) -> Result<Fetched, GetError> {
        let other = |why| GetError::Other { file: path.clone(), repo: self.repo.into(), why };
        let unreadable = |cause: io::Error| other(format!("it cannot be read ({cause})"));
        let mut file = File::open(&path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes != self.remote.bytes {
            return Err(other(format!("it has {bytes} bytes instead of {}", self.remote.bytes)));
        }
        let mut hash = Sha256::new();
        digest(&mut file, &mut hash, self.bar).map_err(unreadable)?;
        let ours: [u8; 32] = hash.finalize().into();
        if let Some(theirs) = self.remote.sha256.filter(|theirs| *theirs != ours) {
            return Err(other(format!("its SHA-256 is {} instead of {}", hex(&ours), hex(&theirs))));
        }
        let (sha256, verified) = (hex(&ours), self.remote.sha256.is_some());
        Ok(Fetched { path, bytes, sha256, verified, fetched_bytes: 0 })
    }
}

impl Partial {
    /// What is there of it, with its digest so far; no other process writes to it meanwhile.
    fn open(path: PathBuf, transfer: &Transfer<'_>) -> Result<Self, GetError> {
        let failed = |cause| write_error(&path, 0, transfer, cause);
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(GetError::Busy(path)),
            // File systems that know no locks are written to all the same.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let length = file.metadata().map_err(failed)?.len();
        if length > transfer.remote.bytes || transfer.remote.sha256.is_none() {
            // Not of this file, or nobody can say whether it is.
            file.set_len(0).map_err(failed)?;
        }
        let mut hash = Sha256::new();
        let have = digest(&mut file, &mut hash, transfer.bar).map_err(failed)?;
        Ok(Self { path, file, hash, have })
    }

    fn take(&mut self, bytes: &[u8], transfer: &Transfer<'_>) -> Result<(), GetError> {
        if let Err(cause) = self.file.write_all(bytes) {
            // A part of these bytes may be there; the digest then does not know it, the next start reads it.
            let have = self.file.metadata().map_or(self.have, |file| file.len());
            return Err(write_error(&self.path, have, transfer, cause));
        }
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        transfer.bar.inc(bytes.len() as u64);
        Ok(())
    }

    /// Forgets what is behind that byte.
    fn back_to(&mut self, from: u64, transfer: &Transfer<'_>) -> Result<(), GetError> {
        let failed = |cause| write_error(&self.path, from, transfer, cause);
        transfer.bar.set_position(transfer.bar.position().saturating_sub(self.have));
        self.file.set_len(from).map_err(failed)?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.hash = Sha256::new();
        self.have = digest(&mut self.file, &mut self.hash, transfer.bar).map_err(failed)?;
        Ok(())
    }

    /// Gives the file its name if it is right, else removes it.
    fn finish(
        self,
        transfer: &Transfer<'_>,
        target: PathBuf,
        theirs: Option<[u8; 32]>,
        fetched_bytes: u64,
    ) -> Result<Fetched, GetError> {
        let Self { path, file, hash, have } = self;
        let ours: [u8; 32] = hash.finalize().into();
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            drop(file);
            std::fs::remove_file(&path).map_err(|cause| GetError::Write { file: path, cause })?;
            return Err(GetError::Differs {
                file: transfer.remote.path.clone(),
                endpoint: transfer.hub.endpoint().into(),
                theirs: hex(&theirs),
                ours: hex(&ours),
            });
        }
        // Until then the system may still owe the disk, and say only now that it is full.
        file.sync_all().map_err(|cause| write_error(&path, have, transfer, cause))?;
        drop(file);
        std::fs::rename(&path, &target).map_err(|cause| GetError::Write { file: target.clone(), cause })?;
        let (sha256, verified) = (hex(&ours), theirs.is_some());
        Ok(Fetched { path: target, bytes: have, sha256, verified, fetched_bytes })
    }
}

/// Reads a file to its end into the digest; gives its length.
fn digest(file: &mut File, hash: &mut Sha256, bar: &ProgressBar) -> io::Result<u64> {
    let (mut piece, mut have) = (vec![0; PIECE], 0);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(have),
            Ok(count) => {
                hash.update(&piece[..count]);
                have += count as u64;
                bar.inc(count as u64);
            }
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

fn write_error(path: &Path, have: u64, transfer: &Transfer<'_>, cause: io::Error) -> GetError {
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            GetError::Full { partial: path.into(), have, bytes: transfer.remote.bytes }
        }
        _ => GetError::Write { file: path.into(), cause },
    }
}

fn hex(digest: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(digest)
}
