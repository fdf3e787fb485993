//! A client of the API, over a plain socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A client waits at most this long for the next byte.
const SILENCE: Duration = Duration::from_secs(120);

fn send(api: SocketAddr, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn head(reader: &mut BufReader<TcpStream>) -> u16 {
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    let code = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {status}")).parse().unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    code
}

/// The status and the JSON there.
pub(crate) fn get(api: SocketAddr, path: &str) -> (u16, Value) {
    let (code, text) = get_text(api, path);
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The status and the text there.
pub(crate) fn get_text(api: SocketAddr, path: &str) -> (u16, String) {
    let mut reader = send(api, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let code = head(&mut reader);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (code, text)
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) prompt: &'static str,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f32,
    pub(crate) seed: u64,
    /// Of which model; `None` for the first.
    pub(crate) model: Option<&'static str>,
}

/// An answer as it comes.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    pub(crate) text: String,
    /// The longest time between two pieces.
    pub(crate) pause: Duration,
    last: Instant,
    pub(crate) pieces: usize,
    pub(crate) finish: Option<String>,
    /// The last event.
    pub(crate) event: Option<String>,
    ended: bool,
}

impl Question {
    pub(crate) fn greedy(prompt: &'static str, max_tokens: u32) -> Self {
        Self { prompt, max_tokens, temperature: 0.0, seed: 0, model: None }
    }

    pub(crate) fn drawn(prompt: &'static str, max_tokens: u32, seed: u64) -> Self {
        Self { prompt, max_tokens, temperature: 0.9, seed, model: None }
    }

    pub(crate) fn of(self, model: &'static str) -> Self {
        Self { model: Some(model), ..self }
    }

    pub(crate) fn ask(&self, api: SocketAddr) -> Stream {
        self.ask_after(api, None)
    }

    /// Asks for what comes after that event.
    pub(crate) fn ask_after(&self, api: SocketAddr, event: Option<&str>) -> Stream {
        let first = || get(api, "/v1/models").1["data"][0]["id"].clone();
        let body = json!({
            "model": self.model.map_or_else(first, Value::from), "prompt": self.prompt,
            "max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed, "stream": true,
        });
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nLast-Event-ID: {}\r\n\r\n{body}",
            event.unwrap_or_default()
        );
        let mut reader = send(api, &request);
        let code = head(&mut reader);
        if code != 200 {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            panic!("status {code}: {text}");
        }
        Stream {
            reader,
            text: String::new(),
            pause: Duration::ZERO,
            last: Instant::now(),
            pieces: 0,
            finish: None,
            event: None,
            ended: false,
        }
    }

    /// The status of a plain answer, and what it says.
    pub(crate) fn status(&self, api: SocketAddr) -> (u16, Value) {
        let body = json!({
            "model": self.model, "prompt": self.prompt, "max_tokens": self.max_tokens,
            "temperature": self.temperature, "seed": self.seed,
        });
        let body = body.to_string();
        let request = format!(
            "POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut reader = send(api, &request);
        let code = head(&mut reader);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (code, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) fn answer(&self, api: SocketAddr) -> String {
        self.ask(api).rest()
    }
}

impl Stream {
    /// Takes the next piece; false at the end.
    pub(crate) fn step(&mut self) -> bool {
        let mut line = String::new();
        while !self.ended {
            line.clear();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                panic!("the stream broke off after {} pieces: {}", self.pieces, self.text);
            }
            if let Some(event) = line.strip_prefix("id: ") {
                self.event = Some(event.trim().to_owned());
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data.trim() == "[DONE]" {
                self.ended = true;
                break;
            }
            let said: Value = serde_json::from_str(data).unwrap();
            assert!(said.get("error").is_none(), "the stream failed after {} pieces: {said}", self.pieces);
            let choice = &said["choices"][0];
            self.text.push_str(choice["text"].as_str().unwrap_or_default());
            if let Some(finish) = choice["finish_reason"].as_str() {
                self.finish = Some(finish.into());
            }
            let now = Instant::now();
            if self.pieces > 0 {
                self.pause = self.pause.max(now - self.last);
            }
            self.last = now;
            self.pieces += 1;
            return true;
        }
        false
    }

    pub(crate) fn rest(mut self) -> String {
        while self.step() {}
        self.text
    }
}
