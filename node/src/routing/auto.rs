//! Which model, where the request leaves it open.

use super::{Ask, Host, Known, Refusal, is_able, is_full, seconds};

/// An answer may take this much longer by a better model, ...
const PATIENCE: f64 = 2.0;
/// ... and is soon enough in any case within this time, seconds.
const SOON_S: f64 = 10.0;

/// The best model that can do what is asked and answers in good time.
///
/// Better is what has more weights: the only measure that is known of every model. Models whose hosts have room go
/// before those whose hosts are full, and these before those that nobody serves.
pub(super) fn choose<'a, 'b>(ask: &Ask<'_>, models: &'a [Known<'b>]) -> Result<&'a Known<'b>, Refusal> {
    let able: Vec<&Known<'_>> =
        models.iter().filter(|known| known.offers().any(|offer| is_able(offer, ask))).collect();
    let time = |known: &&Known<'_>| {
        let open = known.hosts.iter().filter(|host| host.serves && !host.leaves && !is_full(host));
        open.map(|host| seconds(host, ask)).min_by(f64::total_cmp)
    };
    let soonest = able.iter().filter_map(time).fold(f64::INFINITY, f64::min);
    let is_soon = |known: &&&Known<'_>| time(known).is_some_and(|s| s <= (soonest * PATIENCE).max(SOON_S));
    let size = |known: &&&Known<'_>| known.offers().map(|offer| offer.weight_bytes).max().unwrap_or(0);
    let serves = |known: &&&Known<'_>| known.hosts.iter().any(|host: &Host<'_>| host.serves);
    let best = able.iter().filter(is_soon).max_by_key(size);
    let busy = || able.iter().filter(serves).max_by_key(size);
    let loading = || able.iter().max_by_key(size);
    best.or_else(busy).or_else(loading).copied().ok_or_else(|| unable(ask, models))
}

fn unable(ask: &Ask<'_>, models: &[Known<'_>]) -> Refusal {
    let tokens = ask.prompt.saturating_add(ask.output);
    let contexts = models.iter().flat_map(Known::offers).map(|offer| offer.context);
    let why = match contexts.max() {
        None => return super::unknown(super::AUTO, models),
        Some(longest) if tokens > longest => {
            format!("{tokens} tokens are asked, and the longest context of any model here is {longest}")
        }
        Some(_) => "no model here can do what is asked".to_owned(),
    };
    Refusal::Unable { why }
}
