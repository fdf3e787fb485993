//! What a member knows, as a few numbers: two members compare them to find what one of them lacks.
//!
//! Each living member's versions are hashed into one of 256 buckets, and a bucket is the exclusive or of its hashes, so a
//! change costs two operations and the order of changes is nothing. One number for all of them travels with probes; only
//! where it differs are the buckets sent, and only for buckets that differ what is in them.

use super::item::mix;
use super::packet::{Short, Versions};

/// Buckets kept; a power of two. With 3,000 members each has a dozen.
const BUCKETS: usize = 256;
/// The fewest that are sent.
const SENT_LEAST: usize = 8;
/// Members of a bucket to aim at.
const MEMBERS_EACH: usize = 8;

/// The digest of a table.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    sums: [u32; BUCKETS],
}

impl Default for Digest {
    fn default() -> Self {
        Self { sums: [0; BUCKETS] }
    }
}

impl Digest {
    /// Adds what is not in it, removes what is.
    pub(super) fn toggle(&mut self, versions: &Versions) {
        self.sums[bucket(versions.of, BUCKETS)] ^= hash(versions);
    }

    /// All of it in one number.
    pub(super) fn root(&self) -> u32 {
        let fold = |sum: u64, (i, bucket): (usize, &u32)| sum ^ mix((i as u64) << 32 | u64::from(*bucket));
        self.sums.iter().enumerate().fold(0, fold) as u32
    }

    /// So many buckets as are worth sending for `members`.
    pub(super) fn buckets(&self, members: usize) -> Vec<u32> {
        let count = (members / MEMBERS_EACH).next_power_of_two().clamp(SENT_LEAST, BUCKETS);
        self.folded(count)
    }

    /// In `count` buckets, a power of two.
    fn folded(&self, count: usize) -> Vec<u32> {
        let mut sums = vec![0; count];
        for (i, sum) in self.sums.iter().enumerate() {
            sums[i % count] ^= sum;
        }
        sums
    }

    /// The buckets in which it differs from those of another member; `None` where these cannot be buckets.
    pub(super) fn differing(&self, theirs: &[u32]) -> Option<Vec<u16>> {
        if !is_count(theirs.len()) {
            return None;
        }
        let ours = self.folded(theirs.len());
        let differs = |i: &usize| ours[*i] != theirs[*i];
        Some((0..theirs.len()).filter(differs).map(|i| i as u16).collect())
    }
}

/// Whether a digest may come in so many buckets.
pub(super) fn is_count(count: usize) -> bool {
    count.is_power_of_two() && (SENT_LEAST..=BUCKETS).contains(&count)
}

/// Which of `count` buckets a member is in.
pub(super) fn bucket(of: Short, count: usize) -> usize {
    mix(of) as usize % count
}

fn hash(versions: &Versions) -> u32 {
    let seed = mix(versions.of ^ mix(versions.life.0));
    versions.sequences.iter().fold(seed, |hash, sequence| mix(hash ^ u64::from(*sequence))) as u32
}

#[cfg(test)]
mod tests {
    use super::super::item::Life;
    use super::*;

    fn versions(i: u64) -> Versions {
        Versions { of: i << 32, life: Life::new(i), sequences: [1, 2, 3] }
    }

    #[test]
    fn a_digest_is_of_a_set_and_shows_where_sets_differ() {
        let (mut a, mut b) = (Digest::default(), Digest::default());
        (0..500).for_each(|i| a.toggle(&versions(i)));
        (0..500).rev().for_each(|i| b.toggle(&versions(i)));
        assert_eq!(a.root(), b.root());
        let (old, new) = (versions(77), Versions { sequences: [1, 3, 3], ..versions(77) });
        b.toggle(&old);
        b.toggle(&new);
        assert_ne!(a.root(), b.root());
        let theirs = b.buckets(500);
        assert_eq!(a.differing(&theirs), Some(vec![bucket(old.of, theirs.len()) as u16]));
    }

    #[test]
    fn what_cannot_be_buckets_is_refused() {
        for count in [0, 1, 7, 9, 512] {
            assert_eq!(Digest::default().differing(&vec![0; count]), None);
        }
    }
}
