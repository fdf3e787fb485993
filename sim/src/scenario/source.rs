//! The texts a scenario is made of. Every text has its own stretch of one long line of offsets, so that a span alone
//! says which file it lies in.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A stretch of a text, as global offsets in bytes.
pub(crate) type Span = Range<usize>;

/// One file, or the text of one `--set`.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: Arc<str>,
    base: usize,
}

/// All texts of one scenario, in the order in which they were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    all: Vec<Source>,
}

/// A span seen from its own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's name as it was given, or `--set key=value`.
    pub(crate) file: String,
    /// Its whole text.
    pub(crate) text: Arc<str>,
    /// Byte offset of the span in that text.
    pub(crate) offset: usize,
    /// Bytes of the span.
    pub(crate) len: usize,
    /// Counted from one.
    pub(crate) line: usize,
    /// Counted from one, in characters.
    pub(crate) column: usize,
}

impl Sources {
    /// Takes in a text and returns the offset at which its stretch begins.
    pub(crate) fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> usize {
        // One byte apart, so that the end of one text is never the start of the next.
        let base = self.all.last().map_or(0, |s| s.base + s.text.len() + 1);
        self.all.push(Source { name: name.into(), text: text.into(), base });
        base
    }

    /// The first text: the scenario itself.
    pub(crate) fn root(&self) -> &str {
        self.all.first().map_or("", |s| &s.text)
    }

    /// The names of the texts, in the order in which they were read.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|s| s.name.as_str())
    }

    /// The folder of the file a span lies in: paths written there are relative to it.
    pub(crate) fn folder(&self, span: &Span) -> &Path {
        let name = self.source(span.start).map_or("", |s| s.name.as_str());
        Path::new(name).parent().unwrap_or(Path::new(""))
    }

    /// Where a span lies.
    pub(crate) fn place(&self, span: &Span) -> Place {
        let Some(source) = self.source(span.start) else {
            return Place { file: String::new(), text: "".into(), offset: 0, len: 0, line: 1, column: 1 };
        };
        let start = floor_char(&source.text, span.start - source.base);
        let end = floor_char(&source.text, span.end.saturating_sub(source.base)).max(start);
        let before = &source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: source.name.clone(),
            text: Arc::clone(&source.text),
            offset: start,
            len: end - start,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn source(&self, offset: usize) -> Option<&Source> {
        let after = self.all.partition_point(|s| s.base <= offset);
        self.all.get(after.checked_sub(1)?)
    }
}

/// The nearest character boundary at or before `at`: a span out of a parser's error may point past the end.
fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_knows_its_file_line_and_column() {
        let mut sources = Sources::default();
        sources.add("a.toml", "x = 1\n");
        let base = sources.add("folder/b.toml", "y = 2\nä = 3\n");
        let place = sources.place(&(base + 6..base + 8));
        assert_eq!((place.file.as_str(), place.line, place.column), ("folder/b.toml", 2, 1));
        assert_eq!(&place.text[place.offset..place.offset + place.len], "ä");
        assert_eq!(sources.folder(&(base..base)), Path::new("folder"));
    }

    #[test]
    fn a_span_past_the_end_or_inside_a_character_does_not_panic() {
        let mut sources = Sources::default();
        sources.add("a.toml", "ä");
        assert_eq!(sources.place(&(1..99)).column, 1);
        assert_eq!(Sources::default().place(&(3..4)).file, "");
    }
}
