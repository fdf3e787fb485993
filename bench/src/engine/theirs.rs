//! llama.cpp's side: a Python process that is told what to do a line of JSON at a time.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::EngineError;
use super::rows::Test;

/// The program: it comes with the bench, so that no path to it can be wrong.
const PROGRAM: &str = include_str!("../../scripts/llama.py");

/// The running process; it ends when this is dropped.
pub(super) struct Theirs {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Theirs {
    /// Starts the process under the Python at `python`, which has llama-cpp-python.
    pub(super) fn start(python: &Path) -> Result<Self, EngineError> {
        let mut command = Command::new(python);
        command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(EngineError::Theirs)?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it was asked for"));
        Ok(Self { process, orders, answers })
    }

    /// Makes the model at `path` the one to measure.
    pub(super) fn load(&mut self, path: &Path, threads: usize) -> Result<(), EngineError> {
        self.order(&json!({ "load": path, "threads": threads })).map(drop)
    }

    /// How long a test takes.
    pub(super) fn time(&mut self, test: &Test) -> Result<Duration, EngineError> {
        let verb = if test.is_decode { "decode" } else { "prefill" };
        self.order(&json!({ verb: test.tokens }))
    }

    fn order(&mut self, order: &Value) -> Result<Duration, EngineError> {
        self.exchange(order).map_err(EngineError::Theirs)
    }

    fn exchange(&mut self, order: &Value) -> io::Result<Duration> {
        writeln!(self.orders.as_mut().expect("open until it is dropped"), "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let unsound = || io::Error::new(io::ErrorKind::InvalidData, format!("it answered `{}`", line.trim()));
        let answer: Value = serde_json::from_str(&line).map_err(|_| unsound())?;
        let seconds = answer["seconds"].as_f64().ok_or_else(unsound)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| unsound())
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // The end of its input is its end; a process that is gone already is no harm.
        self.orders = None;
        let _ = self.process.wait();
    }
}
