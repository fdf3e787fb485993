//! Which files of a repository are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::refusal::GetError;

/// What is taken where nobody says and several are there: what most people mean, as other programs have it too.
const USUAL: &str = "q4_k_m";

/// A repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `OWNER/NAME`.
    pub(super) repo: String,
    /// A branch, tag or commit, where an address names one.
    pub(super) revision: Option<String>,
    pub(super) wish: Wish,
}

/// Which files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// The only one, or the usual.
    Any,
    /// The one whose name ends so, such as `Q4_K_M`.
    Tag(String),
    /// Those whose path or name matches.
    Glob(String),
}

/// A file in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Its path there.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// Absent where the server does not say.
    pub(super) sha256: Option<[u8; 32]>,
}

impl Remote {
    /// Its name without folders.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for Asked {
    type Err = GetError;

    /// Reads `OWNER/NAME`, `OWNER/NAME:TAG`, or an address such as `https://huggingface.co/OWNER/NAME/blob/main/FILE`.
    fn from_str(text: &str) -> Result<Self, GetError> {
        let wrong = || GetError::Name(text.into());
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').ok_or_else(wrong)?.1,
            None => {
                ["huggingface.co/", "hf.co/"].iter().find_map(|host| text.strip_prefix(host)).unwrap_or(text)
            }
        };
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        let (owner, name, page) = match *parts.as_slice() {
            [owner, name] => (owner, name, None),
            [owner, name, kind @ ("tree" | "blob" | "resolve"), revision] => {
                (owner, name, Some((kind, revision, None)))
            }
            [owner, name, kind @ ("tree" | "blob" | "resolve"), revision, file] => {
                (owner, name, Some((kind, revision, Some(file))))
            }
            _ => return Err(wrong()),
        };
        let (name, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
        if !is_name(owner) || !is_name(name) || tag.is_some_and(str::is_empty) {
            return Err(wrong());
        }
        let wish = match (tag, page) {
            (Some(tag), _) => Wish::Tag(tag.into()),
            (None, Some((kind, _, Some(file)))) if kind != "tree" => Wish::Glob(file.into()),
            _ => Wish::Any,
        };
        let revision = page.map(|(_, revision, _)| revision.to_owned());
        Ok(Self { repo: format!("{owner}/{name}"), revision, wish })
    }
}

/// Whether the Hub takes it as the name of an owner or a repository.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty()
        && text.len() <= 96
        && text.chars().all(is_plain)
        && !text.starts_with('.')
        && !text.contains("..")
}

/// The files that are meant, all parts of each model, in order.
///
/// # Errors
/// [`GetError`] where none is, or several models are and only one can be meant.
pub(super) fn choose(repo: &str, files: &[Remote], wish: &Wish) -> Result<Vec<Remote>, GetError> {
    let models = models(files);
    let chosen: Vec<&String> = match wish {
        Wish::Any => one_of(repo, &models)?.into_iter().collect(),
        Wish::Tag(tag) => tagged(&models, tag),
        Wish::Glob(glob) => {
            let is_meant = |file: &&Remote| is_like(glob, &file.path) || is_like(glob, file.name());
            models.iter().filter(|(_, files)| files.iter().any(&is_meant)).map(|(name, _)| name).collect()
        }
    };
    let wish_text = match wish {
        Wish::Any => String::new(),
        Wish::Tag(tag) => tag.clone(),
        Wish::Glob(glob) => format!("called `{glob}`"),
    };
    let is_glob = matches!(wish, Wish::Glob(_));
    match chosen.len() {
        0 => {
            return Err(GetError::None {
                repo: repo.into(),
                wish: wish_text,
                models: sizes(&models, models.keys()),
            });
        }
        1 => {}
        _ if is_glob => {}
        _ => return Err(GetError::Several { repo: repo.into(), models: sizes(&models, chosen) }),
    }
    let mut all = Vec::new();
    for name in chosen {
        all.extend(whole(repo, name, &models[name])?);
    }
    are_apart(repo, &all)?;
    Ok(all)
}

/// The GGUF files of a repository by model: parts of one together.
fn models(files: &[Remote]) -> BTreeMap<String, Vec<&Remote>> {
    let mut models = BTreeMap::<String, Vec<&Remote>>::new();
    for file in files {
        if let Some(stem) = stem(&file.path) {
            models.entry(part(stem).map_or(stem, |(name, _, _)| name).to_owned()).or_default().push(file);
        }
    }
    models
}

fn stem(path: &str) -> Option<&str> {
    let (stem, kind) = path.rsplit_once('.')?;
    kind.eq_ignore_ascii_case("gguf").then_some(stem)
}

/// `NAME-00002-of-00003` as name, 2 and 3.
fn part(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, parts) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let number_of = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
    Some((name, number_of(number)?, number_of(parts)?))
}

/// The parts of a model in order.
fn whole(repo: &str, model: &str, files: &[&Remote]) -> Result<Vec<Remote>, GetError> {
    let parts: Vec<_> = files.iter().filter_map(|file| part(stem(&file.path)?)).collect();
    let Some((_, _, count)) = parts.first().copied() else {
        return Ok(files.iter().copied().cloned().collect());
    };
    let numbers: BTreeSet<usize> = parts.iter().map(|(_, number, _)| *number).collect();
    let is_whole = numbers.len() == count && files.len() == count && numbers.first() == Some(&1);
    if !is_whole || parts.iter().any(|(_, number, of)| *of != count || *number > count) {
        let (repo, model) = (repo.into(), model.into());
        return Err(GetError::Parts { repo, model, found: numbers.len(), parts: count });
    }
    let mut files: Vec<Remote> = files.iter().copied().cloned().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The only model that speaks, or the usual one of several; none where there is none.
fn one_of<'a>(
    repo: &str,
    models: &'a BTreeMap<String, Vec<&Remote>>,
) -> Result<Option<&'a String>, GetError> {
    let speak: Vec<&String> = models.keys().filter(|name| does_speak(name)).collect();
    if let [] | [_] = speak.as_slice() {
        return Ok(speak.first().copied());
    }
    match tagged(models, USUAL).as_slice() {
        [one] => Ok(Some(one)),
        _ => Err(GetError::Several { repo: repo.into(), models: sizes(models, speak) }),
    }
}

/// The models whose name, or folder, ends with the tag as a word of its own; capitals are the same.
fn tagged<'a>(models: &'a BTreeMap<String, Vec<&Remote>>, tag: &str) -> Vec<&'a String> {
    let tag = tag.to_lowercase();
    let ends = |name: &str| {
        let before = name.strip_suffix(tag.as_str());
        before.is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
    };
    let is_meant = |name: &&String| does_speak(name) && ends(&name.to_lowercase());
    models.keys().filter(is_meant).collect()
}

/// Whether it is a model by itself, and not what sees for another, or what was measured of one.
fn does_speak(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default().to_lowercase();
    !name.starts_with("mmproj") && !name.starts_with("imatrix")
}

fn sizes<'a>(
    models: &BTreeMap<String, Vec<&Remote>>,
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<(String, u64)> {
    let size = |name: &String| models[name].iter().map(|file| file.bytes).sum();
    names.into_iter().map(|name| (format!("{name}.gguf"), size(name))).collect()
}

/// All go into one folder, so each needs a name of its own that leads nowhere else.
fn are_apart(repo: &str, files: &[Remote]) -> Result<(), GetError> {
    let refused =
        |file: &Remote, why| Err(GetError::FileName { repo: repo.into(), file: file.path.clone(), why });
    let mut names = BTreeSet::new();
    for file in files {
        let leads_elsewhere = |c: char| c.is_control() || matches!(c, '\\' | ':');
        if file.name().starts_with('.') || file.name().contains(leads_elsewhere) {
            return refused(file, "whose name this program does not write; ask its owner to rename it");
        }
        if !names.insert(file.name().to_lowercase()) {
            return refused(
                file,
                "and another one of that name; ask for one at a time by --file FOLDER/NAME",
            );
        }
    }
    Ok(())
}

/// Whether the text matches a pattern in which `*` stands for any characters and `?` for one.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how far it reached.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, reached)) => {
                    star = Some((at, reached + 1));
                    (p, t) = (at + 1, reached + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;

    fn files(paths: &[&str]) -> Vec<Remote> {
        paths.iter().map(|path| Remote { path: (*path).into(), bytes: 10, sha256: None }).collect()
    }

    fn chosen(paths: &[&str], wish: &Wish) -> Result<Vec<String>, String> {
        let found = choose("a/b", &files(paths), wish).map_err(|why| why.to_string())?;
        Ok(found.into_iter().map(|file| file.path).collect())
    }

    const MANY: [&str; 9] = [
        "README.md",
        "M-Q4_K_M.gguf",
        "M-Q8_0.gguf",
        "M-UD-Q4_K_XL.gguf",
        "BF16/M-BF16-00002-of-00002.gguf",
        "BF16/M-BF16-00001-of-00002.gguf",
        "mmproj-F16.gguf",
        "M-F16.gguf",
        "imatrix.gguf",
    ];

    #[test]
    fn repositories_are_named_as_people_do() {
        let asked = |text: &str| text.parse::<Asked>().unwrap();
        let any = Asked { repo: "a/b.c-D_1".into(), revision: None, wish: Wish::Any };
        for text in [
            "a/b.c-D_1",
            "hf.co/a/b.c-D_1",
            "https://huggingface.co/a/b.c-D_1/",
            "https://hf.co/a/b.c-D_1?x=y#z",
        ] {
            assert_eq!(asked(text), any, "{text}");
        }
        assert_eq!(asked("a/b.c-D_1:Q4_K_M"), Asked { wish: Wish::Tag("Q4_K_M".into()), ..any.clone() });
        let main = Asked { revision: Some("main".into()), ..any.clone() };
        assert_eq!(asked("https://huggingface.co/a/b.c-D_1/tree/main"), main);
        let file = Asked { wish: Wish::Glob("d/e.gguf".into()), ..main };
        assert_eq!(asked("https://huggingface.co/a/b.c-D_1/blob/main/d/e.gguf"), file);
        for wrong in
            ["", "a", "a/", "/b", "a/b/c", "a/../b", "a/b:", "a b/c", "a/b\n", "https://x", "a/b/blob"]
        {
            assert!(matches!(wrong.parse::<Asked>(), Err(GetError::Name(_))), "{wrong}");
        }
    }

    #[test]
    fn the_usual_is_taken_where_nobody_says() {
        assert_eq!(chosen(&MANY, &Wish::Any).unwrap(), ["M-Q4_K_M.gguf"]);
        assert_eq!(chosen(&["x.gguf", "mmproj-x.gguf"], &Wish::Any).unwrap(), ["x.gguf"]);
        let why = chosen(&["x-Q8_0.gguf", "x-F16.gguf"], &Wish::Any).unwrap_err();
        for part in ["which one?", "a/b:Q4_K_M", "--file", "x-Q8_0.gguf", "x-F16.gguf", "10 B"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let why = chosen(&["README.md"], &Wish::Any).unwrap_err();
        assert_eq!(why, "a/b has no GGUF file");
    }

    #[test]
    fn tags_are_the_end_of_a_name() {
        let tag = |tag: &str| chosen(&MANY, &Wish::Tag(tag.into()));
        assert_eq!(tag("q8_0").unwrap(), ["M-Q8_0.gguf"]);
        assert_eq!(tag("Q4_K_XL").unwrap(), ["M-UD-Q4_K_XL.gguf"]);
        // Not `BF16`, nor what sees for it.
        assert_eq!(tag("F16").unwrap(), ["M-F16.gguf"]);
        let both = ["BF16/M-BF16-00001-of-00002.gguf", "BF16/M-BF16-00002-of-00002.gguf"];
        assert_eq!(tag("bf16").unwrap(), both);
        assert!(tag("Q2_K").unwrap_err().contains("no GGUF file that is Q2_K; there are:"));
    }

    #[test]
    fn a_glob_takes_all_that_match_and_all_their_parts() {
        let glob = |glob: &str| chosen(&MANY, &Wish::Glob(glob.into()));
        assert_eq!(glob("*Q?_*0.gguf").unwrap(), ["M-Q8_0.gguf"]);
        assert_eq!(glob("BF16/*00002*").unwrap().len(), 2);
        assert_eq!(glob("mmproj*").unwrap(), ["mmproj-F16.gguf"]);
        assert_eq!(glob("M-Q*").unwrap().len(), 2);
        assert!(glob("*.md").unwrap_err().contains("called `*.md`"));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for (paths, word) in [
            (&["a/x.gguf", "b/X.gguf"][..], "another one of that name"),
            (&["a/..gguf"], "does not write"),
            (&["a\\b.gguf"], "does not write"),
            (&["x-00001-of-00003.gguf", "x-00003-of-00003.gguf"], "2 of its 3 parts"),
            (&["x-00002-of-00001.gguf"], "1 of its 1 parts"),
        ] {
            let found = chosen(paths, &Wish::Glob("*".into()));
            assert!(found.as_ref().is_err_and(|why| why.contains(word)), "{paths:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(repo in ".{0,40}", paths in prop::collection::vec("[a/.*?0-9of-]{0,30}(\\.gguf)?", 0..8), glob in "[a*?/.]{0,12}") {
            let _ = repo.parse::<Asked>();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            for wish in [Wish::Any, Wish::Tag(glob.clone()), Wish::Glob(glob)] {
                if let Ok(found) = choose("a/b", &files(&paths), &wish) {
                    prop_assert!(!found.is_empty());
                    prop_assert!(found.iter().all(|file| !file.name().is_empty() && !file.name().starts_with('.')));
                }
            }
        }
    }
}
