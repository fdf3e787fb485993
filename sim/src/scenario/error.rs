//! What is wrong with a scenario: every problem with its file, line, key, cause and cure.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::source::{Place, Sources, Span};

/// A problem before its place is looked up.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) cure: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    place: Place,
    source: NamedSource<Arc<str>>,
    key: String,
    message: String,
    cure: String,
}

impl Problem {
    fn new(fault: Fault, sources: &Sources) -> Self {
        let place = sources.place(&fault.span);
        let source = NamedSource::new(&place.file, Arc::clone(&place.text));
        Self { place, source, key: fault.key, message: fault.message, cure: fault.cure }
    }

    /// The file as it was named, or `--set key=value`.
    pub fn file(&self) -> &str {
        &self.place.file
    }

    /// The line, counted from one.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The dotted key, empty for a syntax error.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What was wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would be right.
    pub fn cure(&self) -> &str {
        &self.cure
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.cure.is_empty()).then(|| Box::new(&self.cure) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some("here".into()), self.place.offset, self.place.len);
        Some(Box::new(std::iter::once(label)))
    }
}

/// Everything that is wrong with a scenario, in the order of its text.
#[derive(Debug, Clone)]
pub struct ScenarioError {
    name: String,
    problems: Vec<Problem>,
}

impl ScenarioError {
    pub(crate) fn new(name: &str, mut faults: Vec<Fault>, sources: &Sources) -> Self {
        faults.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        faults.dedup_by(|a, b| (&a.span, &a.message) == (&b.span, &b.message));
        Self { name: name.into(), problems: faults.into_iter().map(|f| Problem::new(f, sources)).collect() }
    }

    /// The problems; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// The plain form, for logs and for what has no terminal: a line for each problem, a line for its cure.
impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "{} cannot be used:", self.name)?,
            n => write!(f, "{} cannot be used, {n} problems:", self.name)?,
        }
        for p in &self.problems {
            write!(f, "\n{}:{}:{}: {p}", p.place.file, p.place.line, p.place.column)?;
            if !p.cure.is_empty() {
                write!(f, "\n    {}", p.cure)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ScenarioError {}

/// The form with the texts underlined: a heading, and each problem as a diagnostic of its own.
#[derive(Debug)]
struct Heading<'a>(&'a ScenarioError);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.problems.len() {
            1 => write!(f, "{} cannot be used", self.0.name),
            n => write!(f, "{} cannot be used: {n} problems", self.0.name),
        }
    }
}

impl std::error::Error for Heading<'_> {}

impl Diagnostic for Heading<'_> {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.0.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}

impl Diagnostic for ScenarioError {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}

impl ScenarioError {
    /// Renders every problem with its text underlined, by `handler`: the form for a terminal.
    pub fn render(&self, handler: &miette::GraphicalReportHandler) -> String {
        let mut text = String::new();
        let heading = Heading(self);
        match handler.render_report(&mut text, &heading) {
            Ok(()) => text,
            // A String does not fail to be written to; should a renderer ever give up, the plain form says the same.
            Err(fmt::Error) => self.to_string(),
        }
    }
}
