//! The emulator alone, with plain sockets: what it adds, and how near it comes to what the link model says.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use node::transport::Lane;
use planner::cost::constants::Software;
use planner::fleet::{Fleet, NodeId};
use serde::Serialize;
use sim::link::{Net as Links, QUANTUM_BYTES};
use sim::report::stats::middle;
use sim::report::{ReportError, write_text};
use sim::scenario::{self, ScenarioError};

use super::emulator::{Emulator, EmulatorError, Ends};
use super::rows::round;
use crate::table::csv;

/// Echoes measured for each figure.
const ECHOES: usize = 300;

/// Bytes of an echo: an activation frame of a small model.
const ECHO_BYTES: usize = 1_200;

/// A socket that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the emulator could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A socket.
    #[error("a socket failed: {0}")]
    Io(#[from] io::Error),
    /// The network made for a check is wrong: a fault of this program.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// No network.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The table could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    /// By the link model.
    expected: f64,
    measured: f64,
    /// Of a duration what is beyond the bare sockets, else per cent.
    error: f64,
    error_unit: &'static str,
}

/// Measures, writes `emulator.csv` under `out` and returns the table.
///
/// # Errors
/// [`CheckError`].
pub fn run(out: &std::path::Path, progress: &mut impl FnMut(&str)) -> Result<String, CheckError> {
    let mut rows = Vec::new();
    progress("echoes");
    let bare_us = bare_echo_us()?;
    for (rtt_ms, mbit_s) in [(0, 10_000), (0, 1_000), (2, 1_000), (2, 100), (10, 100), (40, 100)] {
        rows.push(echo(rtt_ms, mbit_s, bare_us)?);
    }
    for (rtt_ms, mbit_s, bytes) in [(0, 100, 5 << 20), (10, 100, 5 << 20), (2, 1_000, 60 << 20)] {
        progress(&format!("{mbit_s} Mbit/s at {rtt_ms} ms"));
        rows.push(bulk(rtt_ms, mbit_s, bytes)?);
    }
    progress("two streams on one uplink");
    rows.push(fairness()?);
    progress("Wi-Fi");
    rows.push(wifi()?);
    write_text(&out.join("emulator.csv"), &csv(&rows))?;
    let text = text(&rows);
    write_text(&out.join("emulator.txt"), &text)?;
    Ok(text)
}

fn lan(rtt_ms: u32, mbit_s: u32) -> Result<Fleet, ScenarioError> {
    fleet(&format!(
        "class = \"lan\"\nrtt = \"{rtt_ms} ms\"\njitter = \"0 ms\"\nbandwidth = \"{mbit_s} Mbit/s\""
    ))
}

/// Three machines on such a network.
fn fleet(network: &str) -> Result<Fleet, ScenarioError> {
    let text = format!(
        "# check?\nmodel = \"Qwen3-8B Q4_K_M\"\n[network.net]\n{network}\n[node]\nmac = {{ device = \"apple-m4-max\", count = 3 }}\n"
    );
    Ok(scenario::load_text("check.toml".as_ref(), &text, &[], None)?.fleet)
}

/// Connections from nodes to others through an emulator, one a pair.
fn joined(fleet: Fleet, pairs: &[(u32, u32)]) -> Result<(Emulator, Vec<(TcpStream, TcpStream)>), CheckError> {
    let listeners = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    let ends: Vec<Ends> = listeners
        .iter()
        .map(|listener| Ok(Ends { tcp: Some(listener.local_addr()?), udp: None }))
        .collect::<io::Result<_>>()?;
    let emulator = Emulator::start(fleet, &ends, 1)?;
    let mut streams = Vec::new();
    for (from, to) in pairs {
        let front = emulator.front(NodeId(*from), NodeId(*to)).and_then(|front| front.tcp);
        let near =
            TcpStream::connect(front.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?)?;
        let (far, _) = listeners[*to as usize].accept()?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        streams.push((near, far));
    }
    Ok((emulator, streams))
}

/// Microseconds of an echo between two sockets with nothing between them.
fn bare_echo_us() -> Result<f64, CheckError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    Ok(echo_us(near, far)?)
}

fn echo_us(mut near: TcpStream, mut far: TcpStream) -> io::Result<f64> {
    let answering = thread::spawn(move || -> io::Result<()> {
        let mut bytes = [0; ECHO_BYTES];
        for _ in 0..ECHOES {
            far.read_exact(&mut bytes)?;
            far.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut bytes = [7; ECHO_BYTES];
    let mut taken = Vec::new();
    for _ in 0..ECHOES {
        let clock = now();
        near.write_all(&bytes)?;
        near.read_exact(&mut bytes)?;
        taken.push(clock.elapsed().as_secs_f64() * 1e6);
    }
    answering.join().expect("the answering thread does not panic")?;
    Ok(middle(taken))
}

fn echo(rtt_ms: u32, mbit_s: u32, bare_us: f64) -> Result<Row, CheckError> {
    let fleet = lan(rtt_ms, mbit_s)?;
    let mut links = Links::with_software(fleet.clone(), 1, NO_SOFTWARE);
    let one_way = |links: &mut Links| {
        links.send(0, NodeId(0), NodeId(1), Lane::Decode, ECHO_BYTES as u64).map_or(0, |d| d.at_ns)
    };
    let expected = 2.0 * one_way(&mut links) as f64 / 1e3 + bare_us;
    let (_emulator, mut streams) = joined(fleet, &[(0, 1)])?;
    let (near, far) = streams.remove(0);
    let measured = echo_us(near, far)?;
    Ok(Row {
        what: format!("echo of {ECHO_BYTES} B at {rtt_ms} ms, {mbit_s} Mbit/s"),
        unit: "us",
        expected: round(expected),
        measured: round(measured),
        error: round(measured - expected),
        error_unit: "us",
    })
}

fn bulk(rtt_ms: u32, mbit_s: u32, bytes: usize) -> Result<Row, CheckError> {
    let (_emulator, streams) = joined(lan(rtt_ms, mbit_s)?, &[(0, 1)])?;
    let rates = pour(streams, bytes)?;
    let expected = f64::from(mbit_s) / planner::cost::constants::WIRE_OVERHEAD;
    Ok(Row::rate(format!("a stream at {rtt_ms} ms, {mbit_s} Mbit/s"), expected, rates[0]))
}

impl Row {
    fn rate(what: String, expected: f64, measured: f64) -> Self {
        let error = round((measured / expected - 1.0) * 100.0);
        let (expected, measured) = (round(expected), round(measured));
        Self { what, unit: "Mbit/s", expected, measured, error, error_unit: "%" }
    }
}

/// Sends so many bytes through each at once: Mbit/s of each, between its first and its last byte, while all were at it.
fn pour(streams: Vec<(TcpStream, TcpStream)>, bytes: usize) -> Result<Vec<f64>, CheckError> {
    let clock = now();
    let receiving: Vec<_> = streams
        .into_iter()
        .map(|(mut near, mut far)| {
            thread::spawn(move || {
                let block = vec![1; 65_536];
                for _ in 0..bytes.div_ceil(block.len()) {
                    if near.write_all(&block).is_err() {
                        break;
                    }
                }
                near
            });
            thread::spawn(move || -> io::Result<Vec<(f64, usize)>> {
                let (mut seen, mut got, mut block) = (Vec::new(), 0, vec![0; 65_536]);
                while got < bytes {
                    let read = far.read(&mut block)?;
                    if read == 0 {
                        break;
                    }
                    got += read;
                    seen.push((clock.elapsed().as_secs_f64(), got));
                }
                Ok(seen)
            })
        })
        .collect();
    let mut seen = Vec::new();
    for thread in receiving {
        seen.push(thread.join().expect("the receiving thread does not panic")?);
    }
    let from = seen.iter().filter_map(|seen| Some(seen.first()?.0)).fold(0.0, f64::max);
    let to = seen.iter().filter_map(|seen| Some(seen.last()?.0)).fold(f64::INFINITY, f64::min);
    let rate = |seen: &Vec<(f64, usize)>| {
        let at =
            |when: f64| seen.iter().take_while(|(s, _)| *s <= when).last().map_or((when, 0), |known| *known);
        let ((start, before), (end, after)) = (at(from), at(to));
        (after - before) as f64 * 8.0 / 1e6 / (end - start).max(1e-9)
    };
    Ok(seen.iter().map(rate).collect())
}

fn fairness() -> Result<Row, CheckError> {
    let (_emulator, streams) = joined(lan(2, 100)?, &[(0, 1), (0, 2)])?;
    let rates = pour(streams, 5 << 20)?;
    let expected = 100.0 / planner::cost::constants::WIRE_OVERHEAD / 2.0;
    let lesser = rates.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Row::rate("the lesser of two streams on an uplink of 100 Mbit/s".into(), expected, lesser))
}

/// Two streams in one air, against the same bytes put through the link model in its own time.
fn wifi() -> Result<Row, CheckError> {
    let fleet = fleet("class = \"wifi\"\njitter = \"0 ms\"")?;
    let pairs = [(0, 1), (2, 0)];
    let mut links = Links::with_software(fleet.clone(), 1, NO_SOFTWARE);
    let (mut free_ns, mut passed) = ([0u64; 2], 0u64);
    while free_ns.iter().any(|free| *free < 1_000_000_000) {
        let next = usize::from(free_ns[1] < free_ns[0]);
        let (from, to) = pairs[next];
        let sent = links.send(free_ns[next], NodeId(from), NodeId(to), Lane::Prefill, QUANTUM_BYTES);
        free_ns[next] = sent.map_or(u64::MAX, |sent| sent.passed_ns);
        passed += QUANTUM_BYTES;
    }
    let longest = free_ns.iter().copied().fold(0, u64::max) as f64 / 1e9;
    let expected = passed as f64 * 8.0 / 1e6 / longest;
    let (_emulator, streams) = joined(fleet, &pairs)?;
    let rates = pour(streams, 6 << 20)?;
    Ok(Row::rate("two streams on Wi-Fi together".into(), expected, rates.iter().sum()))
}

const NO_SOFTWARE: Software = Software { per_hop_us: 0.0, per_step_us: 0.0, activation_bytes: 2.0 };

fn text(rows: &[Row]) -> String {
    let mut text = format!("{:<52} {:>12} {:>12} {:>12}\n", "", "link model", "measured", "error");
    for row in rows {
        let Row { what, unit, expected, measured, error, error_unit } = row;
        writeln!(text, "{what:<52} {expected:>12.1} {measured:>12.1} {error:>+9.1} {error_unit:<2}  {unit}")
            .expect("writing to text never fails");
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "it times real sockets")]
fn now() -> Instant {
    Instant::now()
}
