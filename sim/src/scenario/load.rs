//! From files to a scenario: read, include, merge, override, decode, resolve.

use std::path::{Path, PathBuf};

use super::Scenario;
use super::error::{Fault, ScenarioError};
use super::overrides;
use super::raw::RawScenario;
use super::reading::Reading;
use super::resolve::resolve;
use super::source::{Sources, Span};
use super::tree::{self, Entry, Node, Value};

/// Files included by files included by files: so deep, and no deeper.
const INCLUDE_DEPTH: usize = 16;
/// A scenario is a page of text; a file larger than this is something else, and is not read.
const FILE_BYTES_MOST: u64 = 4 << 20;

/// A scenario, and the files it was read from: itself, then what it includes, in the order of reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The scenario.
    pub scenario: Scenario,
    /// Its files.
    pub files: Vec<PathBuf>,
}

/// Reads the scenario in the file `path`. `overrides` are dotted keys and values, as `--set` takes them; `seed` goes
/// before the file's own.
///
/// # Errors
/// Everything that is wrong with it: each problem with file, line, key, cause and cure.
pub fn load(
    path: &Path,
    overrides: &[(String, String)],
    seed: Option<u64>,
) -> Result<Scenario, ScenarioError> {
    load_with_files(path, overrides, seed).map(|loaded| loaded.scenario)
}

/// As [`load`], and says which files were read.
///
/// # Errors
/// As [`load`].
pub fn load_with_files(
    path: &Path,
    overrides: &[(String, String)],
    seed: Option<u64>,
) -> Result<Loaded, ScenarioError> {
    let mut loader = Loader::default();
    let root = loader.file(path, None);
    let files = loader.sources.names().map(PathBuf::from).collect();
    let scenario = loader.finish(path, root, overrides, seed)?;
    Ok(Loaded { scenario, files })
}

/// Reads the scenario `text` as if it stood in the file `path`, which need not exist.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    path: &Path,
    text: &str,
    overrides: &[(String, String)],
    seed: Option<u64>,
) -> Result<Scenario, ScenarioError> {
    let mut loader = Loader::default();
    let root = loader.text(path, text.to_owned());
    loader.finish(path, root, overrides, seed)
}

#[derive(Default)]
struct Loader {
    sources: Sources,
    faults: Vec<Fault>,
    /// The files being read, outermost first.
    open: Vec<PathBuf>,
}

impl Loader {
    fn fault(&mut self, span: Span, key: &str, message: String, cure: &str) {
        self.faults.push(Fault { span, key: key.into(), message, cure: cure.into() });
    }

    /// The tree of a file, its includes merged in. `asked` is where an include names it.
    fn file(&mut self, path: &Path, asked: Option<&Span>) -> Option<Node> {
        match read_bounded(path) {
            Ok(text) => self.text(path, text),
            Err(message) => {
                let span = asked.cloned().unwrap_or_else(|| {
                    let base = self.sources.add(path.display().to_string(), "");
                    base..base
                });
                let key = if asked.is_some() { "include" } else { "" };
                let cure = "check the path; an include is relative to the file it stands in";
                self.fault(span, key, format!("{} cannot be read: {message}", path.display()), cure);
                None
            }
        }
    }

    fn text(&mut self, path: &Path, text: String) -> Option<Node> {
        let base = self.sources.add(path.display().to_string(), text.as_str());
        let mut node = match tree::parse_document(&text, base) {
            Ok(node) => node,
            Err(faults) => {
                self.faults.extend(faults);
                return None;
            }
        };
        let includes = take_include(&mut node);
        self.open.push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
        let mut below: Option<Node> = None;
        for (name, span) in self.include_names(includes) {
            let Some(included) = self.included(path, &name, &span) else { continue };
            below = Some(match below {
                Some(lower) => tree::merge(lower, included),
                None => included,
            });
        }
        self.open.pop();
        Some(match below {
            Some(lower) => tree::merge(lower, node),
            None => node,
        })
    }

    fn include_names(&mut self, include: Option<Entry>) -> Vec<(String, Span)> {
        let Some(entry) = include else { return Vec::new() };
        let items = match entry.node.value {
            Value::List(items) => items,
            _ => vec![entry.node],
        };
        let mut names = Vec::new();
        for item in items {
            match item.value {
                Value::Text(name) => names.push((name, item.span)),
                other => {
                    let message = format!("{} where a file's name should be", other.what());
                    self.fault(
                        item.span,
                        "include",
                        message,
                        "write include = \"common.toml\", or a list of names",
                    );
                }
            }
        }
        names
    }

    fn included(&mut self, from: &Path, name: &str, span: &Span) -> Option<Node> {
        let path = from.parent().unwrap_or(Path::new("")).join(name);
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if self.open.contains(&real) || self.open.len() >= INCLUDE_DEPTH {
            let chain: Vec<String> = self.open.iter().chain([&real]).map(|p| stem(p)).collect();
            let message = format!("includes go in a circle: {}", chain.join(" -> "));
            self.fault(span.clone(), "include", message, "take one of these includes out");
            return None;
        }
        self.file(&path, Some(span))
    }

    fn finish(
        mut self,
        path: &Path,
        root: Option<Node>,
        overrides: &[(String, String)],
        seed: Option<u64>,
    ) -> Result<Scenario, ScenarioError> {
        let name = path.display().to_string();
        let mut root = root.unwrap_or(Node { value: Value::Table(Vec::new()), span: 0..0 });
        if self.faults.is_empty() {
            for (key, value) in overrides {
                if let Err(faults) = overrides::apply(&mut root, &mut self.sources, key, value) {
                    self.faults.extend(faults);
                }
            }
        }
        // A file that is no TOML, or half of a merge, would only bring up follow-up errors.
        if !self.faults.is_empty() {
            return Err(ScenarioError::new(&name, self.faults, &self.sources));
        }
        let question = question(self.sources.root());
        let reading = Reading::new(self.sources);
        let raw: RawScenario = reading.table(&root, "");
        let scenario = resolve(&reading, &raw, &stem(path), question, seed);
        let (faults, sources) = reading.into_faults();
        match scenario {
            Some(scenario) if faults.is_empty() => Ok(scenario),
            _ => Err(ScenarioError::new(&name, faults, &sources)),
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    if meta.len() > FILE_BYTES_MOST {
        return Err(format!("{} bytes are too many for a scenario", meta.len()));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| format!("it is not UTF-8 (byte {})", e.utf8_error().valid_up_to()))
}

fn take_include(node: &mut Node) -> Option<Entry> {
    let Value::Table(entries) = &mut node.value else { return None };
    let at = entries.iter().position(|e| e.key == "include")?;
    Some(entries.remove(at))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The comment on top, without its marks, in one line.
fn question(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).take_while(|line| line.starts_with('#'));
    let words: Vec<&str> = lines.flat_map(|line| line.trim_start_matches('#').split_whitespace()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_comment_on_top() {
        assert_eq!(
            question("# What would I get\n#   from two machines?\n\n# not this\nx = 1\n"),
            "What would I get from two machines?"
        );
        assert_eq!(question("x = 1\n# no\n"), "");
    }
}
