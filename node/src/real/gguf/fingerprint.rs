//! Tells whether two machines hold the same model without reading its weights.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use planner::model::gguf::GgufFile;
use sha2::{Digest as _, Sha256};

/// One of a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    /// Its bytes.
    pub(crate) length: u64,
    /// Those before its first tensor.
    pub(crate) head: u64,
}

/// The files of a model, in order.
///
/// # Errors
/// What the system says when a file cannot be looked at.
pub(crate) fn parts(file: &GgufFile) -> io::Result<Vec<Part>> {
    let part = |(number, path): (usize, &PathBuf)| {
        let length = std::fs::metadata(path)?.len();
        let own = file.tensors.values().filter(|tensor| usize::from(tensor.part) == number);
        let head = own.map(|tensor| tensor.at).min().unwrap_or(length).min(length);
        Ok(Part { path: path.clone(), length, head })
    };
    file.parts.iter().enumerate().map(part).collect()
}

/// SHA-256 over everything in a model's files that comes before the weights (metadata, vocabulary, the table of tensors
/// with types, shapes and places) and the files' lengths. Files of equal fingerprints come from one conversion.
///
/// # Errors
/// What the system says when a file cannot be read.
pub fn fingerprint(file: &GgufFile) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for Part { path, length, head } in parts(file)? {
        let mut part = File::open(path)?;
        hash.update(length.to_le_bytes());
        hash.update(head.to_le_bytes());
        let mut left = head;
        let mut bytes = vec![0; 64 << 10];
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            part.read_exact(&mut bytes[..some])?;
            hash.update(&bytes[..some]);
            left -= some as u64;
        }
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;
    use crate::real::gguf::random::{Architecture, RandomModel};

    #[test]
    fn equal_files_have_equal_fingerprints_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, model: RandomModel| {
            let path = folder.path().join(name);
            model.write(&path).unwrap();
            fingerprint(&GgufFile::open(&path).unwrap()).unwrap()
        };
        let llama = of("a.gguf", RandomModel::tiny(Architecture::Llama));
        assert_eq!(llama, of("b.gguf", RandomModel::tiny(Architecture::Llama)));
        assert_ne!(llama, of("c.gguf", RandomModel::tiny(Architecture::Qwen3)));
    }
}
