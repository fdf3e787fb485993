//! What went wrong, how it is shown, and the exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use miette::{GraphicalReportHandler, GraphicalTheme};
use sim::calibrate::CalibrateError;
use sim::report::ReportError;
use sim::run::RunError;
use sim::scenario::ScenarioError;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A scenario is wrong.
    Scenario(Box<ScenarioError>),
    /// A scenario cannot be run: which, and why.
    Run(String, Box<RunError>),
    /// The command line asks for what cannot be.
    Usage(String),
    /// A check failed; what was found is printed already.
    Found,
    /// A record is wrong, or says nothing.
    Record(CalibrateError),
    /// A file of the report could not be written.
    Report(ReportError),
    /// stdout could not be written to.
    Output(std::io::Error),
}

impl From<ScenarioError> for Failure {
    fn from(error: ScenarioError) -> Self {
        Failure::Scenario(Box::new(error))
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        Failure::Report(error)
    }
}

impl From<CalibrateError> for Failure {
    fn from(error: CalibrateError) -> Self {
        Failure::Record(error)
    }
}

impl Failure {
    /// Shows it on stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::Scenario(error) => {
                eprintln!("{}", error.render(&handler()));
                ExitCode::from(2)
            }
            Failure::Run(name, error) => {
                eprintln!("{name} cannot be run: {error}");
                ExitCode::from(1)
            }
            Failure::Usage(message) => {
                eprintln!("{message}");
                ExitCode::from(2)
            }
            Failure::Record(error) => {
                eprintln!("{error}");
                ExitCode::from(if matches!(error, CalibrateError::Run(_)) { 1 } else { 2 })
            }
            Failure::Found => ExitCode::from(1),
            Failure::Report(error) => {
                eprintln!("{error}");
                ExitCode::from(1)
            }
            Failure::Output(cause) => {
                eprintln!("cannot write the answer: {cause}");
                ExitCode::from(1)
            }
        }
    }
}

/// Colours and links only where a person looks.
fn handler() -> GraphicalReportHandler {
    let theme = if std::io::stderr().is_terminal() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    GraphicalReportHandler::new_themed(theme).with_width(110).with_links(false)
}
