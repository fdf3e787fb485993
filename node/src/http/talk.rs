//! The answers of a request, all at once. Nothing of it runs on its own: who drops the talk cancels its answers.

use std::pin::Pin;
use std::sync::Arc;

use futures::future::{FutureExt as _, join_all, ready};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::asked::Asked;
use super::fault::Fault;
use super::meter::Timing;
use super::routes::Shared;
use super::speech::{Said, Speech};
use super::turns::Turn;
use crate::clock::Instant;
use crate::head::Replies;

/// What is said, each with the number of its answer.
pub(super) type Events = Pin<Box<dyn Stream<Item = (usize, Said)> + Send>>;

/// Asks the node and gives what it says.
///
/// # Errors
/// [`Fault`]: the model is gone, the node refuses, or nothing serves and no token came for a while. Where `patient`, it is
/// waited for the first token however long that takes, as long as something serves.
pub(super) async fn talk(
    shared: &Arc<Shared>,
    asked: &Arc<Asked>,
    since: Instant,
    turn: Turn,
    patient: bool,
) -> Result<Events, Fault> {
    let id = &asked.served.id;
    let mut all = Vec::with_capacity(asked.answers());
    for request in asked.requests() {
        let replies = shared.desk.ask(id, request);
        all.push(replies.ok_or_else(|| Fault::model(id, &[]))?);
    }
    shared.meter.asked(asked.prompt_tokens());
    let events = events(Arc::clone(shared), Arc::clone(asked), since, all);
    // Given up with the answers.
    let mut events = events.inspect(move |_| _ = &turn).boxed();
    loop {
        match timeout(shared.bounds.patience, events.next()).await {
            Ok(Some((_, Said::Failed(fault)))) => return Err(fault),
            Ok(first) => return Ok(stream::iter(first).chain(events).boxed()),
            Err(_) => {}
        }
        let models = shared.desk.health().models;
        let model = models.into_iter().find(|model| model.id == *id).unwrap_or_default();
        if !model.serving {
            let why = model.why.unwrap_or_else(|| format!("Nobody serves {id} now."));
            return Err(Fault::not_serving(why, &shared.bounds));
        }
        if !patient {
            return Ok(events);
        }
    }
}

fn events(shared: Arc<Shared>, asked: Arc<Asked>, since: Instant, all: Vec<Replies>) -> Events {
    let (sender, receiver) = mpsc::channel(shared.bounds.pieces);
    let speaking = async move {
        let one = |(answer, replies): (usize, Replies)| {
            let timing = Timing::new(Arc::clone(&shared.meter), shared.clock, since);
            Speech::new(&asked, answer).run(answer, replies, &shared.bounds, timing, sender.clone())
        };
        let speeches: Vec<_> = all.into_iter().enumerate().map(one).collect();
        join_all(speeches).await;
    };
    let heard = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|event| (event, receiver))
    });
    // Polled along with what is heard, and gone with it.
    let driver = speaking.into_stream().filter_map(|()| ready(None));
    stream::select(heard, driver).boxed()
}
