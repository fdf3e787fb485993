//! `status`: how a node is that serves. `page`: in words.

mod page;

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use clap::Args;

use self::page::page;
use super::failure::Failure;
use super::{print, print_json, serve};
use crate::http::Health;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Show how a node and its mesh are: who is there, what each serves, by which plans, what is asked for, how far apart they are.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Where the node's API listens.
    #[arg(long, value_name = "URL", env = "MESHWRIGHT_API", default_value = serve::API)]
    api: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds, until Ctrl-C. With `--json`, or where the output is no terminal, only what has
    /// changed, one object a line or a page behind the other.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
}

pub(super) fn status(asked: &Status) -> Result<(), Failure> {
    let health: Health = ask(&asked.api, "/status")?;
    match asked.watch {
        Some(seconds) => watch(asked, Duration::from_secs(seconds), health),
        None if asked.json => print_json(&health),
        None => print(&page(&health)),
    }
}

/// Shows the node's state as it changes, and that nobody answers while nobody does.
fn watch(asked: &Status, pause: Duration, first: Health) -> Result<(), Failure> {
    let (mut seen, mut shown) = (Ok(first), String::new());
    loop {
        let now = match &seen {
            Ok(health) if asked.json => line(health),
            Ok(health) => page(health),
            Err(why) if asked.json => line(&serde_json::json!({ "serving": false, "why": why })),
            Err(why) => format!("{why}\n"),
        };
        if now != shown {
            let (clear, gap) = match (asked.json, std::io::stdout().is_terminal()) {
                (true, _) => ("", ""),
                (false, true) => ("\x1b[2J\x1b[H", "\nUpdated as it changes; Ctrl-C ends this.\n"),
                (false, false) => ("", "\n"),
            };
            let mut out = std::io::stdout().lock();
            match out.write_all(format!("{clear}{now}{gap}").as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => {}
                // Whoever reads has seen enough.
                Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                Err(cause) => return Err(Failure::Output(cause)),
            }
            shown = now;
        }
        std::thread::sleep(pause);
        seen = ask::<Health>(&asked.api, "/status").map_err(|why| why.to_string());
    }
}

fn line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("string keys and finite numbers always serialise") + "\n"
}

/// What the node at `api` says under `path`.
///
/// # Errors
/// [`Failure::Asking`] where nobody answers, or not as a node.
pub(super) fn ask<T: serde::de::DeserializeOwned>(api: &str, path: &str) -> Result<T, Failure> {
    let host = host(api)?;
    let body = get(host, path)?;
    serde_json::from_str(&body)
        .map_err(|why| Failure::Asking(format!("what answers at {host} is no node of this release: {why}")))
}

/// `127.0.0.1:9337` of `http://127.0.0.1:9337/v1`.
pub(super) fn host(api: &str) -> Result<&str, Failure> {
    let rest = api.strip_prefix("http://").unwrap_or(api);
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains("://") || rest.contains("://") || !host.contains(':') {
        let words = format!(
            "--api: `{api}` is no address of a node: write http://HOST:PORT, such as http://{}",
            serve::API
        );
        return Err(Failure::Usage(words));
    }
    Ok(host)
}

/// What is at `path`.
fn get(host: &str, path: &str) -> Result<String, Failure> {
    let silent = |why: std::io::Error| {
        let cure = "is `meshwright serve` running, and does --api name its address?";
        Failure::Asking(format!("nobody answers at {host} ({why}): {cure}"))
    };
    let address = host.to_socket_addrs().map_err(silent)?.next();
    let address = address.ok_or_else(|| Failure::Usage(format!("--api: `{host}` names no machine")))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(silent)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(silent)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(silent)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(silent)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(silent)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(Failure::Asking(format!("what answers at {host} is no node of this release"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for api in ["127.0.0.1:9337", "http://127.0.0.1:9337", "http://127.0.0.1:9337/v1"] {
            assert!(host(api).is_ok_and(|host| host == "127.0.0.1:9337"), "{api}");
        }
        for api in ["https://127.0.0.1:9337", "localhost", ""] {
            assert!(host(api).is_err(), "{api}");
        }
    }
}
