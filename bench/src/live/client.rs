//! A client that streams one answer over HTTP and notes when each token came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

/// Nobody waits longer for the next token: a mesh that heals takes some seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// How soon another node is asked.
const AGAIN: Duration = Duration::from_millis(100);

/// A line of an answer is a token with its JSON around it.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The model's name in the API.
    pub model: String,
    /// Text to go on from.
    pub prompt: String,
    /// Tokens of the answer at most.
    pub tokens: u32,
}

/// An answer, and when its parts came.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// All of it.
    pub text: String,
    /// When each piece of text came, seconds after asking. A piece is a token, but for those that end inside a character.
    pub came_s: Vec<f64>,
    /// Tokens of the prompt, as the server counts.
    pub prompt_tokens: u32,
    /// Tokens of the answer, as the server counts.
    pub answer_tokens: u32,
    /// How often it was gone on with at another node.
    pub moves: u32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection.
    #[error("{at}: {cause}; is the node still running?")]
    Io {
        /// Whom it asked.
        at: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The server did not want to.
    #[error("{at} answered {status}: {body}")]
    Refused {
        /// Whom it asked.
        at: SocketAddr,
        /// HTTP's status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// The server spoke otherwise than it should.
    #[error("{at} sent `{line}`, which is no part of a stream")]
    Garbled {
        /// Whom it asked.
        at: SocketAddr,
        /// What it sent.
        line: String,
    },
    /// The stream ended before its end was said.
    #[error("{at} ended the stream after {tokens} pieces of text: {text}")]
    CutShort {
        /// Whom it asked.
        at: SocketAddr,
        /// Pieces that had come.
        tokens: usize,
        /// The text of them.
        text: String,
    },
}

impl Answer {
    /// From asking to the first token, milliseconds.
    pub fn ttft_ms(&self) -> f64 {
        self.came_s.first().map_or(0.0, |s| s * 1e3)
    }

    /// Tokens a second after the first.
    pub fn decode_tok_s(&self) -> f64 {
        match (self.came_s.first(), self.came_s.last()) {
            (Some(first), Some(last)) if last > first => {
                f64::from(self.answer_tokens.saturating_sub(1)) / (last - first)
            }
            _ => 0.0,
        }
    }

    /// The longest wait between two pieces of text, milliseconds.
    pub fn longest_pause_ms(&self) -> f64 {
        let pairs = self.came_s.iter().zip(self.came_s.iter().skip(1));
        pairs.map(|(a, b)| (b - a) * 1e3).fold(0.0, f64::max)
    }
}

/// Asks, and reads the answer to its end. `progress` hears of each piece of text with the number of those before.
///
/// # Errors
/// [`ClientError`].
pub fn ask(
    at: SocketAddr,
    question: &Question,
    mut progress: impl FnMut(usize),
) -> Result<Answer, ClientError> {
    let mut answer = Answer::default();
    read(at, question, now(), &mut None, &mut answer, &mut progress)?;
    Ok(answer)
}

/// Asks the first node that answers; where a stream breaks off it is gone on with at the next one, as an official client's
/// reconnection would do it (`Last-Event-ID`). Gives up when `patience` has passed without a token.
///
/// # Errors
/// The last node's [`ClientError`].
pub fn ask_any(nodes: &[SocketAddr], question: &Question, patience: Duration) -> Result<Answer, ClientError> {
    let (clock, mut answer, mut event) = (now(), Answer::default(), None);
    for at in nodes.iter().cycle() {
        let before = answer.came_s.len();
        let Err(why) = read(*at, question, clock, &mut event, &mut answer, &mut |_| {}) else { break };
        let silent_s = clock.elapsed().as_secs_f64() - answer.came_s.last().copied().unwrap_or_default();
        if silent_s > patience.as_secs_f64() {
            return Err(why);
        }
        answer.moves += u32::from(before > 0 || !answer.came_s.is_empty());
        std::thread::sleep(AGAIN);
    }
    Ok(answer)
}

/// Reads an answer, or what comes of it after `event`.
fn read(
    at: SocketAddr,
    question: &Question,
    clock: Instant,
    seen: &mut Option<String>,
    answer: &mut Answer,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ClientError> {
    let failed = |cause| ClientError::Io { at, cause };
    let body = json!({
        "model": question.model,
        "prompt": question.prompt,
        "max_tokens": question.tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let after = seen.as_deref().unwrap_or_default();
    let mut reader = post(at, "/v1/completions", after, &body.to_string()).map_err(failed)?;
    let head = Head::read(&mut reader).map_err(failed)?;
    let mut body = Body { reader, chunked: head.chunked, left: head.length.unwrap_or(u64::MAX) };
    if head.status != 200 {
        let mut text = String::new();
        // What came before an error says more than the error.
        let _ = body.read_to_string(&mut text);
        return Err(ClientError::Refused { at, status: head.status, body: text });
    }
    for line in BufReader::new(body).lines() {
        let line = line.map_err(failed)?;
        if let Some(id) = line.strip_prefix("id:") {
            *seen = Some(id.trim().to_owned());
        }
        let Some(event) = line.strip_prefix("data:") else { continue };
        if event.trim() == "[DONE]" {
            return Ok(());
        }
        let event: Event =
            serde_json::from_str(event).map_err(|_| ClientError::Garbled { at, line: line.clone() })?;
        if let Some(error) = event.error {
            return Err(ClientError::Refused { at, status: 200, body: error.to_string() });
        }
        if event.add_to(answer, clock.elapsed().as_secs_f64()) {
            progress(answer.came_s.len() - 1);
        }
    }
    Err(ClientError::CutShort { at, tokens: answer.came_s.len(), text: answer.text.clone() })
}

/// Asks for a page: status and body.
///
/// # Errors
/// The connection's.
pub fn get(at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let head = Head::read(&mut reader)?;
    let mut text = String::new();
    Body { reader, chunked: head.chunked, left: head.length.unwrap_or(u64::MAX) }
        .read_to_string(&mut text)?;
    Ok((head.status, text))
}

fn post(at: SocketAddr, path: &str, after: &str, body: &str) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {at}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nlast-event-id: {after}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    Ok(BufReader::new(stream))
}

#[expect(clippy::disallowed_methods, reason = "it times real processes")]
fn now() -> Instant {
    Instant::now()
}

/// What an event of the stream may say.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

impl Event {
    /// Whether text has come.
    fn add_to(self, answer: &mut Answer, at_s: f64) -> bool {
        if let Some(usage) = self.usage {
            answer.prompt_tokens = usage.prompt_tokens;
            answer.answer_tokens = usage.completion_tokens;
        }
        let text: String = self.choices.into_iter().map(|choice| choice.text).collect();
        if text.is_empty() {
            return false;
        }
        answer.text += &text;
        answer.came_s.push(at_s);
        true
    }
}

/// An answer's first lines.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    chunked: bool,
    length: Option<u64>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let status = bounded_line(reader)?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(not_http)?;
        let mut head = Head { status, chunked: false, length: None };
        loop {
            let line = bounded_line(reader)?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok(head);
            }
            if let Some(length) = line.strip_prefix("content-length:") {
                head.length = Some(length.trim().parse().map_err(|_| not_http())?);
            }
            head.chunked |= line.starts_with("transfer-encoding:") && line.ends_with("chunked");
        }
    }
}

fn bounded_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP")
}

/// An answer's body without its framing.
struct Body<R> {
    reader: R,
    chunked: bool,
    /// Of the chunk, or of all; a first chunk is not begun where it is chunked.
    left: u64,
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.chunked && (self.left == 0 || self.left == u64::MAX) {
            if self.left == 0 {
                bounded_line(&mut self.reader)?;
            }
            let size = bounded_line(&mut self.reader)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            self.left = u64::from_str_radix(size, 16).map_err(|_| not_http())?;
            if self.left == 0 {
                self.chunked = false;
            }
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let read = self.reader.read(&mut out[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::TcpListener;

    use super::*;

    fn body(text: &str, chunked: bool, left: u64) -> io::Result<String> {
        let mut out = String::new();
        Body { reader: text.as_bytes(), chunked, left }.read_to_string(&mut out).map(|_| out)
    }

    #[test]
    fn bodies_come_whole_in_chunks_or_by_length() {
        let chunks = "5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
        assert_eq!(body(chunks, true, u64::MAX).unwrap(), "hello world");
        assert_eq!(body("hello world", false, 5).unwrap(), "hello");
        assert!(body("zz\r\nhello", true, u64::MAX).is_err());
    }

    fn answered(with: &'static str) -> Result<Answer, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(with.as_bytes()).unwrap();
        });
        let question = Question { model: "m".into(), prompt: "Once".into(), tokens: 3 };
        let answer = ask(at, &question, |_| {});
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_stream_is_read_token_by_token_to_its_end() {
        let answer = answered(concat!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
            "data: {\"choices\":[{\"text\":\" upon\"}]}\n\n",
            ": still here\n\n",
            "data: {\"choices\":[{\"text\":\" a\"}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":2}}\n\n",
            "data: [DONE]\n\n",
        ));
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.came_s.len()), (" upon a", 2));
        assert_eq!((answer.prompt_tokens, answer.answer_tokens), (2, 2));
    }

    #[test]
    fn refusals_and_broken_streams_are_told_apart() {
        let refused = answered("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone");
        assert!(matches!(refused, Err(ClientError::Refused { status: 404, .. })), "{refused:?}");
        let cut = answered("HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"text\":\"x\"}]}\n\n");
        assert!(matches!(cut, Err(ClientError::CutShort { tokens: 1, .. })), "{cut:?}");
    }
}
