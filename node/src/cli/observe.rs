//! `observe`: what happens on the nodes of a mesh, as a file that `sim replay` and `sim calibrate` read.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::figures::{count, plural};
use super::run::Interrupt;
use super::status::host;
use super::{Stopwatch, serve};
use crate::record::{Header, Line, Opening};

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// How often it is looked whether it shall end.
const LOOK: Duration = Duration::from_millis(100);
/// Longest line, bytes.
const LINE_MAX: u64 = 1 << 20;

/// Record what happens on the nodes of a mesh, for `sim replay` and `sim calibrate`.
///
/// Requests, engine steps, plans and losses are recorded as the simulator records its own; what was said is not. Give the API
/// of each node that shall be in it.
#[derive(Debug, Args)]
pub(super) struct Observe {
    /// Where the file goes; it must not be there yet.
    #[arg(value_name = "RUN.jsonl")]
    out: PathBuf,
    /// Where the API of a node listens; may be repeated.
    #[arg(long, value_name = "URL", default_values_t = [serve::API.to_owned()])]
    api: Vec<String>,
    /// Which model, by its name in the API [default: the first of each node].
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// End after so many seconds; without, Ctrl-C ends it.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// A node that tells.
struct Teller {
    lines: BufReader<Box<dyn std::io::Read + Send>>,
    /// What its clock must be given to be the record's, nanoseconds.
    ahead_ns: i128,
    header: Header,
}

pub(super) fn observe(asked: &Observe) -> Result<(), Failure> {
    let clock = Stopwatch::start();
    let interrupt = Interrupt::default();
    interrupt.listen();
    let model = asked.model.as_deref();
    let tellers: Vec<Teller> =
        asked.api.iter().map(|api| begin(api, model, &clock)).collect::<Result<_, _>>()?;
    let header = merged(tellers.iter().map(|teller| &teller.header))?;
    let file = File::create_new(&asked.out).map_err(|cause| unwritable(&asked.out, &cause))?;
    let mut file = BufWriter::new(file);
    let nodes: Vec<&str> = header.nodes.iter().map(|node| node.name.as_str()).collect();
    note!("recording {} of {}; Ctrl-C ends it", nodes.join(", "), header.model);
    let mut write = |line: String| writeln!(file, "{line}").map_err(|cause| unwritable(&asked.out, &cause));
    write(json(&header))?;
    let (sender, receiver) = sync_channel(LINES_MAX);
    for teller in tellers {
        let sender = sender.clone();
        std::thread::spawn(move || teller.tell(&sender));
    }
    drop(sender);
    let is_over = || interrupt.is_set() || asked.seconds.is_some_and(|most| clock.seconds() >= most as f64);
    let (events, lost) = take(&receiver, is_over, &mut write)?;
    file.flush().map_err(|cause| unwritable(&asked.out, &cause))?;
    let lost =
        if lost > 0 { format!("; {} came too fast and are missing", count(lost)) } else { String::new() };
    note!("{} in {}{lost}", plural(events, "event"), asked.out.display());
    Ok(())
}

/// Writes what is told until it is over, or nobody tells any more. Gives how many events that were, and how many were lost.
fn take(
    receiver: &Receiver<Told>,
    is_over: impl Fn() -> bool,
    mut write: impl FnMut(String) -> Result<(), Failure>,
) -> Result<(u64, u64), Failure> {
    let (mut events, mut lost) = (0, 0);
    while !is_over() {
        match receiver.recv_timeout(LOOK) {
            Ok(Told::Event(line)) => {
                events += 1;
                write(json(&line))?;
            }
            Ok(Told::Lost(more)) => lost += more,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                note!("no node tells any more");
                break;
            }
        }
    }
    Ok((events, lost))
}

/// What a node tells.
enum Told {
    Event(Line),
    /// So many events are missing.
    Lost(u64),
}

/// Asks a node to tell.
fn begin(api: &str, model: Option<&str>, clock: &Stopwatch) -> Result<Teller, Failure> {
    let host = host(api)?;
    let silent = |why: &dyn std::fmt::Display| {
        Failure::Asking(format!("nobody tells at {host} ({why}): is `meshwright serve` running there?"))
    };
    let request = ureq::get(format!("http://{host}/events"));
    let request = model.iter().fold(request, |request, model| request.query("model", model));
    let answer = request.call().map_err(|why| silent(&why))?;
    let reader: Box<dyn std::io::Read + Send> = Box::new(answer.into_body().into_reader());
    let mut lines = BufReader::new(reader);
    let first = next(&mut lines).map_err(|why| silent(&why))?.unwrap_or_default();
    let opening: Opening = serde_json::from_str(&first).map_err(|why| {
        Failure::Asking(format!("what answers at {host} is no node of this release: {why}"))
    })?;
    let here_ns = (clock.seconds() * 1e9) as i128;
    Ok(Teller { lines, ahead_ns: here_ns - i128::from(opening.now_ns), header: opening.header })
}

impl Teller {
    /// Passes on what it tells, by the record's clock, until it ends or nobody listens.
    fn tell(mut self, to: &SyncSender<Told>) {
        while let Ok(Some(text)) = next(&mut self.lines) {
            let told = match serde_json::from_str::<Line>(&text) {
                Ok(line) => {
                    let at_ns = i128::from(line.at_ns) + self.ahead_ns;
                    Told::Event(Line { at_ns: u64::try_from(at_ns).unwrap_or_default(), ..line })
                }
                Err(_) => {
                    let lost = serde_json::from_str::<serde_json::Value>(&text).ok();
                    Told::Lost(lost.and_then(|value| value["lost"].as_u64()).unwrap_or(1))
                }
            };
            if to.send(told).is_err() {
                return;
            }
        }
        let names: Vec<&str> = self.header.nodes.iter().map(|node| node.name.as_str()).collect();
        note!("{} tells no more", names.join(", "));
    }
}

/// The next line that says something.
fn next(lines: &mut impl std::io::BufRead) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    loop {
        let mut line = String::new();
        if lines.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if !line.trim().is_empty() {
            return Ok(Some(line));
        }
    }
}

/// All nodes' headers as one.
fn merged<'a>(headers: impl Iterator<Item = &'a Header>) -> Result<Header, Failure> {
    let mut all: Option<Header> = None;
    for header in headers {
        let Some(all) = &mut all else {
            all = Some(header.clone());
            continue;
        };
        if all.model != header.model {
            return Err(Failure::Usage(format!(
                "these nodes tell of {} and of {}: say which with --model",
                all.model, header.model
            )));
        }
        all.gguf = all.gguf.take().or_else(|| header.gguf.clone());
        all.nodes.extend(header.nodes.iter().cloned());
        all.links.extend(header.links.iter().cloned());
    }
    let mut all = all.ok_or_else(|| Failure::Usage("--api: name a node".into()))?;
    let mut names: Vec<&str> = all.nodes.iter().map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
        return Err(Failure::Usage(format!(
            "two nodes are called {}: give each a --name of its own",
            twice[0]
        )));
    }
    let known = |name: &String| all.nodes.iter().any(|node| node.name == *name);
    all.links.retain(|link| known(&link.between.0) && known(&link.between.1));
    Ok(all)
}

fn unwritable(out: &Path, cause: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot write {}: {cause}; give another file", out.display()))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("string keys and finite numbers always serialise")
}
