//! Why a model was not fetched: where, why, and what to do.

use std::fmt::Write as _;
use std::path::PathBuf;

use planner::units::fmt_bytes;

/// Names of models that an error lists at most.
const LISTED_MAX: usize = 40;

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum GetError {
    /// The repository's name is none.
    #[error("`{0}` names no repository: write OWNER/NAME, OWNER/NAME:Q4_K_M, or the address of its page")]
    Name(String),
    /// `HF_ENDPOINT` is no address.
    #[error(
        "HF_ENDPOINT is `{0}`, which is no address: write https://HOST, or leave it out for https://huggingface.co"
    )]
    Endpoint(String),
    /// `SSL_CERT_FILE` holds no certificates.
    #[error("SSL_CERT_FILE is {}: {why}; name a file of certificates (PEM), or leave it out for Mozilla's list", file.display())]
    Certificates {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing answers.
    #[error(
        "cannot reach {host}: {why}; check the network (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror)"
    )]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What the system said.
        why: String,
    },
    /// No such repository, or none that may be seen.
    #[error("{endpoint} shows no repository {repo}{}", if *.has_token { " to the owner of this token; check the name, and that the token may read it" } else { "; check the name, and if it is private set HF_TOKEN to a token that may read it" })]
    NoRepository {
        /// The server.
        endpoint: String,
        /// Which.
        repo: String,
        /// Whether a token went along.
        has_token: bool,
    },
    /// No such branch, tag or commit.
    #[error(
        "{repo} has no revision {revision}; give a branch, a tag or a commit by --revision, or leave it out for `main`"
    )]
    NoRevision {
        /// Where.
        repo: String,
        /// Which.
        revision: String,
    },
    /// The repository has no such file any more.
    #[error("{repo} has no file {file} any more; give the command again, to ask anew what there is")]
    NoFile {
        /// Where.
        repo: String,
        /// Which.
        file: String,
    },
    /// Its conditions must be accepted first.
    #[error("{repo} is gated: accept its conditions at {endpoint}/{repo}, then {}", if *.has_token { "come again with the token of that account in HF_TOKEN" } else { "set HF_TOKEN to a token of that account (from https://huggingface.co/settings/tokens)" })]
    Gated {
        /// The server.
        endpoint: String,
        /// Which.
        repo: String,
        /// Whether a token went along.
        has_token: bool,
    },
    /// The server wants to know who asks.
    #[error(
        "{endpoint} gives {repo} only to those it knows: set HF_TOKEN to a token (from https://huggingface.co/settings/tokens)"
    )]
    NoToken {
        /// The server.
        endpoint: String,
        /// Which.
        repo: String,
    },
    /// The server does not take the token.
    #[error(
        "{endpoint} does not take the token from {source_name} for {repo}: it is wrong, out of date, or may not read that; make another one (https://huggingface.co/settings/tokens)"
    )]
    TokenRefused {
        /// The server.
        endpoint: String,
        /// Which.
        repo: String,
        /// Where the token is from.
        source_name: String,
    },
    /// The server says something else.
    #[error("{url} answers {status}{}; try again later", if .message.is_empty() { String::new() } else { format!(" ({message})") })]
    Status {
        /// What was asked for.
        url: String,
        /// The number.
        status: u16,
        /// In the server's words.
        message: String,
    },
    /// What the server says makes no sense.
    #[error("{url}: {why}; is that the Hub, or a mirror of it? HF_ENDPOINT says where it is")]
    Unsound {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// No file of the repository is what was asked for.
    #[error("{repo} has no GGUF file{}{}", if .wish.is_empty() { String::new() } else { format!(" that is {wish}") }, listed(.models, "; there are"))]
    None {
        /// Where.
        repo: String,
        /// What was asked for; empty for any.
        wish: String,
        /// What there is.
        models: Vec<(String, u64)>,
    },
    /// Several models are.
    #[error("which one? Name it as {repo}:Q4_K_M or by --file GLOB{}", listed(.models, ". In {repo} there are").replace("{repo}", .repo))]
    Several {
        /// Where.
        repo: String,
        /// What there is.
        models: Vec<(String, u64)>,
    },
    /// A split model lacks parts.
    #[error("{model} in {repo} has {found} of its {parts} parts; whoever put it there must add the others")]
    Parts {
        /// Where.
        repo: String,
        /// Which.
        model: String,
        /// Parts that are there.
        found: usize,
        /// Parts that it says it has.
        parts: usize,
    },
    /// A file's name would lead elsewhere, or two have the same.
    #[error("{repo} has a file {file} {why}")]
    FileName {
        /// Where.
        repo: String,
        /// Which.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No room, before anything is fetched.
    #[error("{} has {} free and {} are to come; make room, or give another folder by --to", folder.display(), fmt_bytes(*.free), fmt_bytes(*.needed))]
    Room {
        /// Where.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes to come.
        needed: u64,
    },
    /// The disk is full.
    #[error("the disk is full: {} of {} are in {}; make room and give the command again, and it goes on from there; or remove that file", fmt_bytes(*.have), fmt_bytes(*.bytes), partial.display())]
    Full {
        /// What came so far.
        partial: PathBuf,
        /// Bytes of it.
        have: u64,
        /// Bytes of the whole.
        bytes: u64,
    },
    /// The disk says no.
    #[error("cannot write {}: {cause}; give another folder by --to", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process fetches it.
    #[error("another process is fetching {}; wait for that one", .0.display())]
    Busy(PathBuf),
    /// The transfer ended early, again and again.
    #[error("{url}: {why}; {} of {} are in {}: give the command again, and it goes on from there", fmt_bytes(*.have), fmt_bytes(*.bytes), partial.display())]
    Broken {
        /// What was asked for.
        url: String,
        /// How it ended.
        why: String,
        /// What came so far.
        partial: PathBuf,
        /// Bytes of it.
        have: u64,
        /// Bytes of the whole.
        bytes: u64,
    },
    /// What came is not what the repository holds.
    #[error(
        "what came for {file} has the SHA-256 {ours} instead of {theirs}: it was damaged on its way, or at {endpoint}. It is removed; give the command again"
    )]
    Differs {
        /// Which.
        file: String,
        /// The server.
        endpoint: String,
        /// What the repository says.
        theirs: String,
        /// What came.
        ours: String,
    },
    /// A file of that name is there and is another one.
    #[error("{} is there and is not the file of {repo}: {why}; move it away, or give another folder by --to", file.display())]
    Other {
        /// Which.
        file: PathBuf,
        /// Whose.
        repo: String,
        /// In what it differs.
        why: String,
    },
}

impl GetError {
    /// Whether the command line, rather than network or disk, is to be mended.
    pub(in crate::cli) fn is_usage(&self) -> bool {
        use GetError::{Certificates, Endpoint, Name, NoRevision, None, Several};
        matches!(
            self,
            Name(_) | Endpoint(_) | Certificates { .. } | NoRevision { .. } | None { .. } | Several { .. }
        )
    }

    /// Whether it may be over in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            GetError::Unreachable { .. } | GetError::Broken { .. } => true,
            GetError::Status { status, .. } => *status == 408 || *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Names with sizes, a line each.
fn listed(models: &[(String, u64)], words: &str) -> String {
    if models.is_empty() {
        return String::new();
    }
    let width = models.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{words}:");
    for (name, bytes) in models.iter().take(LISTED_MAX) {
        write!(text, "\n  {name:width$}  {:>9}", fmt_bytes(*bytes)).expect("writing to text never fails");
    }
    if models.len() > LISTED_MAX {
        write!(text, "\n  and {} more", models.len() - LISTED_MAX).expect("writing to text never fails");
    }
    text
}
