//! A client of few lines: what it sends and reads is what is on the wire.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A server that does not answer within this time fails the test.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The JSON of a request that was answered.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// The error of a request that was not: its shape is OpenAI's.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        assert!(self.status >= 400, "{self:?}");
        let error = self.json()["error"].clone();
        assert!(error["message"].as_str().is_some_and(|words| words.len() > 10), "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        let fields: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 4, "message, type, param, code: {fields:?}");
        error
    }
}

/// A connection with a request on it.
pub(crate) struct Open {
    reader: BufReader<TcpStream>,
}

impl Open {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// Sends bytes; false where the server hears nothing any more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn hang_up(&mut self) {
        let _ = self.reader.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Reads status and headers; `None` where the server closed the connection.
    pub(crate) fn head(&mut self) -> Option<Response> {
        let status = self.line()?;
        let status = status.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(Response { status, headers, body: String::new() });
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The rest of the response.
    pub(crate) fn whole(&mut self) -> Option<Response> {
        let mut response = self.head()?;
        let mut body = Vec::new();
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else {
            let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
            body.resize(length, 0);
            self.reader.read_exact(&mut body).ok()?;
        }
        response.body = String::from_utf8(body).unwrap();
        Some(response)
    }

    /// The next chunk of a chunked body; `None` behind the last.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }
}

/// A whole request as bytes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    (head + "\r\n" + body).into_bytes()
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

pub(crate) fn get(address: SocketAddr, path: &str) -> Response {
    let mut open = Open::new(address);
    open.send(&request("GET", path, &[], ""));
    open.whole().unwrap()
}

/// A request under way.
pub(crate) fn begin(address: SocketAddr, path: &str, body: &Value) -> Open {
    let mut open = Open::new(address);
    open.send(&request("POST", path, &[JSON], &body.to_string()));
    open
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &Value) -> Response {
    begin(address, path, body).whole().unwrap()
}

/// The JSON of a reply that is streamed, without `[DONE]`, which must be there.
#[track_caller]
pub(crate) fn stream(address: SocketAddr, path: &str, body: &Value) -> Vec<Value> {
    named_stream(address, path, &[], body).into_iter().map(|(_, chunk)| chunk).collect()
}

/// The same, each with the name of its event, asked for with these headers.
#[track_caller]
pub(crate) fn named_stream(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Vec<(Option<String>, Value)> {
    let response = post_with(address, path, headers, &streamed(body));
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    let mut events: Vec<&str> =
        response.body.split_terminator("\n\n").filter(|event| !event.starts_with(':')).collect();
    assert_eq!(events.pop(), Some("data: [DONE]"), "{}", response.body);
    let field =
        |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(String::from));
    let json = |event: &str| serde_json::from_str(&field(event, "data: ").unwrap()).unwrap();
    events.into_iter().map(|event| (field(event, "id: "), json(event))).collect()
}

/// The same request, to be answered as a stream.
pub(crate) fn streamed(body: &Value) -> Value {
    let mut body = body.clone();
    body["stream"] = true.into();
    body
}

/// Asks with further headers.
pub(crate) fn post_with(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut open = Open::new(address);
    let headers: Vec<_> = [JSON].into_iter().chain(headers.iter().copied()).collect();
    open.send(&request("POST", path, &headers, &body.to_string()));
    open.whole().unwrap()
}
