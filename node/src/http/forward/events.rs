//! A stream of server-sent events, cut where an event ends.

use bytes::{Bytes, BytesMut};

/// Longest event, bytes: those of this API are far shorter.
const EVENT_MAX: usize = 16 << 20;

/// A whole event as it came, with the empty line behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) bytes: Bytes,
    pub(super) kind: Kind,
}

/// What an event is for whoever would go on behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Named: the stream can go on behind it.
    Named(String),
    /// Belongs to the next named one.
    Unnamed,
    /// The last one.
    Done,
    /// Says only that the stream lives.
    Comment,
    /// The node cannot go on.
    Failed,
}

/// An event has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Cuts bytes into events.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    rest: BytesMut,
}

impl Cutter {
    /// The events that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut from = self.rest.len().saturating_sub(1);
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest[from..].windows(2).position(|two| two == b"\n\n") {
            let event = self.rest.split_to(from + end + 2).freeze();
            events.push(Event { kind: kind(&event), bytes: event });
            from = 0;
        }
        if self.rest.len() > EVENT_MAX { Err(TooLong) } else { Ok(events) }
    }
}

fn kind(event: &[u8]) -> Kind {
    let field = |name: &[u8]| {
        let value = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        Some(String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value)).into_owned())
    };
    match (field(b"data:"), field(b"id:")) {
        (Some(data), _) if data == "[DONE]" => Kind::Done,
        (Some(data), None) if data.starts_with("{\"error\":") => Kind::Failed,
        (_, Some(id)) => Kind::Named(id),
        (Some(_), None) => Kind::Unnamed,
        (None, None) => Kind::Comment,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "data: {\"a\":1}\nid: 7.1-0a\n\n: ping\n\ndata: {\"b\":2}\n\ndata: {\"error\":{}}\n\ndata: [DONE]\n\n";

    proptest! {
        #[test]
        fn events_come_whole_however_the_bytes_are_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut cutter, mut events, mut from) = (Cutter::default(), Vec::new(), 0);
            for to in cuts.into_iter().chain([STREAM.len()]) {
                events.extend(cutter.push(&STREAM.as_bytes()[from..to]).unwrap());
                from = to;
            }
            let kinds: Vec<Kind> = events.iter().map(|event| event.kind.clone()).collect();
            let named = Kind::Named("7.1-0a".into());
            prop_assert_eq!(kinds, [named, Kind::Comment, Kind::Unnamed, Kind::Failed, Kind::Done]);
            let bytes: Vec<u8> = events.iter().flat_map(|event| event.bytes.to_vec()).collect();
            prop_assert_eq!(bytes, STREAM.as_bytes());
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut cutter = Cutter::default();
        let piece = vec![b'a'; EVENT_MAX / 2 + 1];
        assert_eq!((cutter.push(&piece), cutter.push(&piece)), (Ok(Vec::new()), Err(TooLong)));
    }
}
