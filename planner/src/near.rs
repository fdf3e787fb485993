//! Names near to one that was not found, for errors that say what may have been meant.

/// A name longer than this is cut before it is compared: it comes from a person's file, and no known name is that long.
const COMPARED_BYTES: usize = 64;

/// The `count` names most like `wanted`, comma-separated: one that contains it first, then by edit distance. Case does not
/// matter.
pub(crate) fn names<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, count: usize) -> String {
    let wanted = wanted.to_ascii_lowercase();
    let mut ranked: Vec<(usize, &str)> = names
        .map(|name| {
            let lower = name.to_ascii_lowercase();
            (if lower.contains(&wanted) { 0 } else { 1 + edit_distance(&wanted, &lower) }, name)
        })
        .collect();
    ranked.sort_unstable();
    let nearest: Vec<&str> = ranked.into_iter().take(count).map(|(_, name)| name).collect();
    nearest.join(", ")
}

/// Levenshtein distance over bytes, with one row of state.
fn edit_distance(a: &str, b: &str) -> usize {
    let a = &a.as_bytes()[..a.len().min(COMPARED_BYTES)];
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, of_b) in b.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, of_a) in a.iter().enumerate() {
            let kept = diagonal + usize::from(*of_a != of_b);
            diagonal = row[j + 1];
            row[j + 1] = kept.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_insertions_deletions_and_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn a_name_that_contains_the_wanted_one_comes_first() {
        let known = ["abd", "xx-ABC-yy", "zzz"];
        assert_eq!(names("abc", known.into_iter(), 2), "xx-ABC-yy, abd");
    }

    #[test]
    fn endless_names_are_cut() {
        assert_eq!(names(&"x".repeat(1_000_000), ["a"].into_iter(), 5), "a");
    }
}
