//! Who a node is: an Ed25519 key in a file that only its owner can read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use libp2p::identity::{Keypair, PublicKey, ed25519};

use crate::ids::PeerId;
use crate::real::whole::write_whole;

/// What the key file begins with, so that another file is not taken for one.
const HEADER: &str = "meshwright key 1 ";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("{path}: {cause}; give another folder with --home")]
    File {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It holds something else.
    #[error("{0}: not a key of this program; move it away, and a new one is made")]
    Foreign(String),
}

/// An Ed25519 key, and what it says of its owner.
#[derive(Clone)]
pub struct Key(Keypair);

impl Key {
    /// A new one, from the system's entropy.
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// The key of these 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key"))
    }

    /// The 32 secret bytes.
    pub fn seed(&self) -> [u8; 32] {
        let secret = self.0.clone().try_into_ed25519().expect("it was made as one").secret();
        secret.as_ref().try_into().expect("a secret has 32 bytes")
    }

    /// What others call its owner.
    pub fn peer(&self) -> PeerId {
        public_name(&self.0.public()).expect("it was made as an Ed25519 key")
    }

    /// For libp2p.
    pub(super) fn pair(&self) -> Keypair {
        self.0.clone()
    }

    /// A signature of 64 bytes.
    pub(super) fn signature(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.0.sign(message).expect("Ed25519 signs anything");
        signature.try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The key in `path`; made and kept there when there is none. Two processes that start at once agree on one.
    ///
    /// # Errors
    /// [`KeyError`] when the file cannot be read or written, or is not a key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let file_error = |cause| KeyError::File { path: path.display().to_string(), cause };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(file_error)?;
        }
        match read(path) {
            Ok(text) => parse(&text).ok_or_else(|| KeyError::Foreign(path.display().to_string())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                let key = Self::generate();
                match key.create(path) {
                    Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Self::load_or_create(path),
                    made => made.map(|()| key).map_err(file_error),
                }
            }
            Err(cause) => Err(file_error(cause)),
        }
    }

    /// Writes the key to `path`, whatever is there.
    ///
    /// # Errors
    /// [`KeyError::File`].
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        write_whole(path, self.text().as_bytes(), true)
            .map_err(|cause| KeyError::File { path: path.display().to_string(), cause })
    }

    /// What stands in its file.
    fn text(&self) -> String {
        format!("{HEADER}{}\n", data_encoding::HEXLOWER.encode(&self.seed()))
    }

    /// Whole or not at all: written beside, then linked to its name, which fails when somebody else was first.
    fn create(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension(format!("part{}", std::process::id()));
        let _ = std::fs::remove_file(&beside);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        let written = file.write_all(self.text().as_bytes()).and_then(|()| file.sync_all());
        let done = written.and_then(|()| std::fs::hard_link(&beside, path));
        let _ = std::fs::remove_file(&beside);
        done
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.peer())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(1024).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str) -> Option<Key> {
    let hex = text.strip_prefix(HEADER)?.trim_end();
    let seed = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    Some(Key::from_seed(seed.try_into().ok()?))
}

/// The name of the owner of an Ed25519 key.
pub(super) fn public_name(key: &PublicKey) -> Option<PeerId> {
    key.clone().try_into_ed25519().ok().map(|key| PeerId(key.to_bytes()))
}

fn public_key(peer: PeerId) -> Option<PublicKey> {
    ed25519::PublicKey::try_from_bytes(&peer.0).ok().map(PublicKey::from)
}

/// libp2p's name for that peer; `None` when the name is no Ed25519 key.
pub(super) fn their_name(peer: PeerId) -> Option<libp2p::PeerId> {
    public_key(peer).map(|key| key.to_peer_id())
}

/// Our name for libp2p's; `None` for one that is not an Ed25519 key in full.
pub(super) fn our_name(peer: &libp2p::PeerId) -> Option<PeerId> {
    let bytes = peer.to_bytes();
    // A multihash of code 0 (identity): the key itself, as protobuf.
    let key = bytes.strip_prefix(&[0x00, 0x24])?;
    public_name(&PublicKey::try_decode_protobuf(key).ok()?)
}

/// Whether `signature` of `message` is the peer's.
pub(super) fn is_signed(peer: PeerId, message: &[u8], signature: &[u8]) -> bool {
    public_key(peer).is_some_and(|key| key.verify(message, signature))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn names_translate_both_ways() {
        let peer = Key::generate().peer();
        assert_eq!(our_name(&their_name(peer).unwrap()), Some(peer));
        assert_eq!(our_name(&libp2p::PeerId::random()), None);
    }

    #[test]
    fn a_key_lasts_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/key");
        let first = Key::load_or_create(&path).unwrap();
        assert_eq!(first.peer(), Key::load_or_create(&path).unwrap().peer());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let other = Key::generate();
        other.save(&path).unwrap();
        assert_eq!(other.peer(), Key::load_or_create(&path).unwrap().peer());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "something was left behind"
        );
    }

    #[test]
    fn what_is_no_key_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["", "meshwright key 1 ", "meshwright key 1 00ff\n", "something else"] {
            std::fs::write(&path, text).unwrap();
            let error = Key::load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyError::Foreign(_)), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
