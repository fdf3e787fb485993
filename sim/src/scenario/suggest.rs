//! "Did you mean": the known name nearest to a mistyped one.

/// The known names nearest to `word`, nearest first, at most `limit`; none that is further away than a third of its
/// length, since a far guess misleads.
pub(crate) fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    limit: usize,
) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (distance(&word, &name.to_lowercase()), name))
        .filter(|(far, name)| *far <= name.chars().count().max(word.chars().count()).div_ceil(3))
        .collect();
    found.sort();
    found.into_iter().take(limit).map(|(_, name)| name).collect()
}

/// A sentence: the nearest name where there is one, else all that are known.
pub(crate) fn cure<'a>(word: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied(), 1).first() {
        Some(name) if known.len() > 1 => format!("did you mean `{name}`? {what}: {}", list(&known)),
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => format!("{what}: none"),
        None => format!("{what}: {}", list(&known)),
    }
}

/// Names as people list them; long lists are cut.
pub(crate) fn list(names: &[&str]) -> String {
    const SHOWN: usize = 24;
    let mut text = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(", and {} more", names.len() - SHOWN));
    }
    text
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // A name this much longer is never near; it also bounds the work on hostile input.
    if a.len().abs_diff(b.len()) > 32 || a.len() > 128 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not() {
        let known = ["network", "machine", "device"];
        assert_eq!(nearest("netwrok", known, 1), ["network"]);
        assert_eq!(nearest("Device", known, 1), ["device"]);
        assert!(nearest("colour", known, 3).is_empty());
    }

    #[test]
    fn a_cure_lists_what_there_is() {
        assert_eq!(
            cure("hom", "networks", ["home", "office"]),
            "did you mean `home`? networks: home, office"
        );
        assert_eq!(cure("zzz", "networks", ["home"]), "networks: home");
        assert_eq!(cure("zzz", "networks", []), "networks: none");
    }
}
