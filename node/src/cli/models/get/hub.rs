//! The Hugging Face Hub's paths over HTTP: what a repository holds, and a file of it from any byte on.
//!
//! The crate `hf-hub` (1.0) is not used: it begins a broken download again, checks no digest, and brings some sixty crates
//! for Xet and uploads. What is needed of the Hub is two paths, over the TLS that libp2p brings anyway.
//!
//! Source: <https://huggingface.co/docs/hub/api>, and the headers that `huggingface_hub.file_download` reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::choice::Remote;
use super::refusal::GetError;

/// The Hub where `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may think.
const ANSWER: Duration = Duration::from_secs(60);
/// How long nothing may come in mid-transfer.
const STALL: Duration = Duration::from_secs(60);
/// Redirects in a row.
const HOPS_MAX: usize = 8;
/// A repository's listing, bytes; of one with ten thousand files it has about three million.
const LISTING_MAX: u64 = 32 << 20;

/// A server that speaks as the Hub does.
pub(super) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

/// Who asks, and where that is written.
struct Token {
    text: String,
    source: String,
}

/// What a repository holds at one commit.
pub(super) struct Listing {
    /// The commit, or the revision as it was asked for where the server does not say.
    pub(super) commit: String,
    pub(super) files: Vec<Remote>,
}

/// A file's bytes as they come.
pub(super) struct Opened {
    pub(super) body: Body,
    /// The place in the file of the first byte that comes: 0 where the server does not go on from where it was asked to.
    pub(super) from: u64,
    /// Whose bytes.
    pub(super) url: String,
    /// What the file's must be, if the server says so.
    pub(super) sha256: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Repository {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// Of a file in large file storage.
#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

struct Reply {
    url: String,
    status: u16,
    headers: HeaderMap,
    body: Body,
    /// `X-Linked-Etag` of any answer on the way: the redirect has it, not what it leads to.
    linked: Option<String>,
}

impl Hub {
    /// The one that the environment names, asked as whom it says.
    ///
    /// # Errors
    /// [`GetError::Endpoint`], [`GetError::Certificates`].
    pub(super) fn from_environment() -> Result<Self, GetError> {
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_default();
        let endpoint = match endpoint.trim().trim_end_matches('/') {
            "" => ENDPOINT.to_owned(),
            given => given.to_owned(),
        };
        if origin(&endpoint).is_none() {
            return Err(GetError::Endpoint(endpoint));
        }
        // The same provider as libp2p's, named here: a process in which two are linked has no default one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls =
            TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots()?).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(STALL))
            .user_agent(concat!("meshwright/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, endpoint, token: token() })
    }

    /// The server.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the repository holds.
    ///
    /// # Errors
    /// [`GetError`]: unreachable, no such repository or revision, not for whoever asks, or not a Hub's answer.
    pub(super) fn list(&self, repo: &str, revision: &str) -> Result<Listing, GetError> {
        let url =
            format!("{}/api/models/{repo}/revision/{}?blobs=true", self.endpoint, escaped(revision, false));
        let reply = self.ask(&url, 0)?;
        if reply.status != 200 {
            return Err(self.refused(&reply, repo, revision, ""));
        }
        let unsound = |why: String| GetError::Unsound { url: url.clone(), why };
        let text = reply.body.into_with_config().limit(LISTING_MAX).read_to_string();
        let text = text.map_err(|why| unsound(format!("its answer cannot be read ({why})")))?;
        let found: Repository = serde_json::from_str(&text)
            .map_err(|why| unsound(format!("its answer is no listing ({why})")))?;
        let mut files = Vec::new();
        for Sibling { rfilename: path, size, lfs } in found.siblings {
            let (digest, linked_size) = lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
            // Files without a size cannot be weights.
            if let Some(bytes) = linked_size.or(size) {
                files.push(Remote { path, bytes, sha256: digest.as_deref().and_then(digest_of) });
            }
        }
        Ok(Listing { commit: found.sha.unwrap_or_else(|| revision.to_owned()), files })
    }

    /// A file's bytes, from one of them on.
    ///
    /// # Errors
    /// [`GetError`] as for [`Self::list`].
    pub(super) fn open(&self, repo: &str, commit: &str, file: &str, from: u64) -> Result<Opened, GetError> {
        let url =
            format!("{}/{repo}/resolve/{}/{}", self.endpoint, escaped(commit, false), escaped(file, true));
        let reply = self.ask(&url, from)?;
        let from = match reply.status {
            200 => 0,
            206 => first_byte(&reply.headers).filter(|first| *first <= from).ok_or_else(|| {
                GetError::Unsound {
                    url: reply.url.clone(),
                    why: "it answers with a part of the file that was not asked for".into(),
                }
            })?,
            _ => return Err(self.refused(&reply, repo, commit, file)),
        };
        let sha256 = reply.linked.as_deref().and_then(digest_of);
        Ok(Opened { body: reply.body, from, url, sha256 })
    }

    /// Asks, and follows where the answer leads. The token goes to the endpoint alone.
    fn ask(&self, url: &str, from: u64) -> Result<Reply, GetError> {
        let mut url = url.to_owned();
        let mut linked = None;
        for _ in 0..HOPS_MAX {
            let mut request = self.agent.get(&url).header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url) == origin(&self.endpoint)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.text));
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|why| unreachable(&url, &why))?;
            let (head, body) = response.into_parts();
            linked = linked.or_else(|| text_of(&head.headers, "x-linked-etag"));
            if !head.status.is_redirection() {
                return Ok(Reply { url, status: head.status.as_u16(), headers: head.headers, body, linked });
            }
            url = led_to(&url, &head.headers)?;
        }
        Err(GetError::Unsound { url, why: format!("it leads on and on, {HOPS_MAX} times") })
    }

    /// What an answer other than success means. Source: `huggingface_hub.utils.hf_raise_for_status`.
    fn refused(&self, reply: &Reply, repo: &str, revision: &str, file: &str) -> GetError {
        let said = |name| text_of(&reply.headers, name).unwrap_or_default();
        let (endpoint, repo, has_token) = (self.endpoint.clone(), repo.to_owned(), self.token.is_some());
        match (reply.status, said("x-error-code").as_str(), &self.token) {
            (_, "GatedRepo", _) => GetError::Gated { endpoint, repo, has_token },
            (_, "RevisionNotFound", _) => GetError::NoRevision { repo, revision: revision.into() },
            (_, "EntryNotFound", _) => GetError::NoFile { repo, file: file.into() },
            (_, "RepoNotFound", _) | (404, _, _) => GetError::NoRepository { endpoint, repo, has_token },
            (401 | 403, _, None) => GetError::NoToken { endpoint, repo },
            (401 | 403, _, Some(token)) => {
                GetError::TokenRefused { endpoint, repo, source_name: token.source.clone() }
            }
            (status, _, _) => {
                GetError::Status { url: reply.url.clone(), status, message: said("x-error-message") }
            }
        }
    }
}

/// Whose certificates are believed: Mozilla's list, or those in the file of `SSL_CERT_FILE`, as in programs with OpenSSL.
fn roots() -> Result<RootCerts, GetError> {
    let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()).map(PathBuf::from)
    else {
        return Ok(RootCerts::WebPki);
    };
    let refused = |why: String| GetError::Certificates { file: file.clone(), why };
    let text = std::fs::read(&file).map_err(|cause| refused(cause.to_string()))?;
    let one = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let all: Vec<_> = parse_pem(&text).filter_map(one).collect();
    if all.is_empty() {
        return Err(refused("no certificate is in it".into()));
    }
    Ok(RootCerts::new_with_certs(&all))
}

/// The token of the environment, or the one that `hf auth login` keeps.
fn token() -> Option<Token> {
    let set =
        |name| std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some(text) = set("HF_TOKEN") {
        return Some(Token { text, source: "HF_TOKEN".into() });
    }
    let home = || Some(etcetera::home_dir().ok()?.join(".cache/huggingface"));
    let file = match set("HF_TOKEN_PATH") {
        Some(path) => PathBuf::from(path),
        None => set("HF_HOME").map(PathBuf::from).or_else(home)?.join("token"),
    };
    let text = std::fs::read_to_string(&file).ok()?.trim().to_owned();
    (!text.is_empty()).then(|| Token { text, source: file.display().to_string() })
}

/// Scheme and authority of an address of the web; `None` for any other.
fn origin(url: &str) -> Option<(bool, String)> {
    let uri: Uri = url.parse().ok()?;
    let is_secure = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    Some((is_secure, uri.authority()?.as_str().to_lowercase()))
}

/// Where a redirect leads.
fn led_to(url: &str, headers: &HeaderMap) -> Result<String, GetError> {
    let unsound = |why: &str| GetError::Unsound { url: url.into(), why: why.into() };
    let location = text_of(headers, "location").ok_or_else(|| unsound("it leads on without saying where"))?;
    let (is_secure, authority) = origin(url).ok_or_else(|| unsound("it is no address of the web"))?;
    let next = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}://{authority}{location}", if is_secure { "https" } else { "http" })
    } else {
        location
    };
    match origin(&next) {
        Some((next_is_secure, _)) if next_is_secure || !is_secure => Ok(next),
        _ => Err(unsound("it leads on to what is no address, or a less secure one")),
    }
}

fn unreachable(url: &str, why: &ureq::Error) -> GetError {
    let host = origin(url).map_or_else(|| url.to_owned(), |(_, authority)| authority);
    let why = match why {
        ureq::Error::HostNotFound => "no address is known for that name".into(),
        ureq::Error::Timeout(_) => "it does not answer in time".into(),
        ureq::Error::Rustls(rustls::Error::InvalidCertificate(cause)) => {
            format!(
                "its certificate is not to be believed ({cause}); where a proxy reads along, SSL_CERT_FILE names its certificates"
            )
        }
        ureq::Error::Io(cause) => cause.to_string(),
        other => other.to_string(),
    };
    GetError::Unreachable { host, why }
}

/// The first byte that `Content-Range: bytes 5-9/10` says it has.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = text_of(headers, "content-range")?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// A SHA-256 as 64 hexadecimal digits, quoted or not; other ETags are none.
fn digest_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim().trim_start_matches("W/").trim_matches('"');
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

/// As part of a path: everything but letters, digits and `-._~` as `%XX`, and slashes too unless they are kept.
fn escaped(text: &str, keeps_slashes: bool) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keeps_slashes && byte == b'/');
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(escaped("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escaped("a b/c#?%ü.gguf", true), "a%20b/c%23%3F%25%C3%BC.gguf");
    }

    #[test]
    fn redirects_lead_on_but_never_to_less_security() {
        let led = |from, to| led_to(from, &headers("location", to)).ok();
        assert_eq!(led("https://a.b/c?d", "/e?f").as_deref(), Some("https://a.b/e?f"));
        assert_eq!(led("http://a.b:1/c", "https://d.e/f").as_deref(), Some("https://d.e/f"));
        for wrong in ["http://d.e/f", "//d.e/f", "file:///etc/passwd", "g", ""] {
            assert_eq!(led("https://a.b/c", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn digests_and_ranges_are_read_and_nothing_else() {
        let digest = "ab".repeat(32);
        assert_eq!(digest_of(&format!("\"{digest}\"")), Some([0xab; 32]));
        assert_eq!(digest_of(&format!("W/\"{digest}\"")), Some([0xab; 32]));
        assert_eq!(digest_of("\"ab\""), None);
        assert_eq!(digest_of(&"ü".repeat(32)), None);
        let first = |text| first_byte(&headers("content-range", text));
        assert_eq!(first("bytes 5-9/10"), Some(5));
        assert!(
            ["bytes */10", "5-9/10", "bytes -1-2/3", "bytes 99999999999999999999-/1"]
                .into_iter()
                .all(|t| first(t).is_none())
        );
    }
}
