//! What a hop of the ring costs in software: two processes on this machine pass one frame to and fro as two stages do, each
//! computing for a while in between, as a thread of the engine does. What a round takes beyond the two computations is
//! two hops: queues, threads that wake, encryption, sockets.
//!
//!     cargo run --release -p node --example hop -- [tcp|quic] [bytes] [compute us] [rounds] [network|own]
//!
//! `own`: the tasks of both stages run on a runtime beside the network's; `network`: on the network's.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::Multiaddr;
use node::ids::{Attempt, SessionId};
use node::membership::Profile;
use node::real::p2p::identity::Key;
use node::real::p2p::invite::MeshKey;
use node::real::p2p::streams::P2p;
use node::real::p2p::{Announce, Net, NetConfig};
use node::switch::Branch;
use node::transport::{Lane, Rx as _, Transport as _, Tx as _};
use node::wire::{Frame, Payload, Step, StepInput};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Rounds before the first that counts.
const WARM: usize = 50;

fn net(mesh: &MeshKey, protocol: &str, join: Vec<Multiaddr>) -> Result<Net> {
    let key = Key::generate();
    let listen = if protocol == "quic" { "/ip4/127.0.0.1/udp/0/quic-v1" } else { "/ip4/127.0.0.1/tcp/0" };
    let profile = Profile { name: "hop".into(), ..Profile::default() };
    let config = NetConfig {
        key,
        mesh: mesh.clone(),
        listen: vec![listen.parse()?],
        join,
        remembered: Vec::new(),
        announce: Announce::Only(Vec::new()),
        mdns: false,
        only: None,
        frame_bytes: 1 << 24,
    };
    Ok(Net::start(config, profile)?)
}

fn branch(net: &Net) -> Result<Branch<P2p>> {
    Ok(net.branch(&[1; 32]).ok_or("the conversation is there already")?)
}

fn frame(bytes: usize) -> Frame {
    let input = StepInput::Hidden(Payload::Real(Bytes::from(vec![7; bytes])));
    let (session, attempt) = (SessionId(1), Attempt(0));
    Frame::Steps(vec![Step {
        session,
        attempt,
        stage: 1,
        route: None,
        start: 9,
        count: 1,
        input,
        sample: None,
    }])
}

fn compute(until: Duration) {
    let began = Instant::now();
    while began.elapsed() < until {
        std::hint::spin_loop();
    }
}

/// A stage: what comes is computed and goes on. Gives what each round took, if it counts rounds.
async fn stage(
    transport: Branch<P2p>,
    other: node::ids::PeerId,
    work: Duration,
    bytes: usize,
    rounds: usize,
    first: bool,
) -> Result<Vec<f64>> {
    let (arrive, mut arrivals) = mpsc::channel::<Frame>(64);
    let (leave, mut leaving) = mpsc::channel::<Frame>(64);
    let mut tx = transport.open(other, Lane::Decode).await?;
    tokio::spawn(async move {
        while let Some(frame) = leaving.recv().await {
            if tx.send(frame).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let Ok((_, _, mut rx)) = transport.accept().await else { return };
        while let Ok(Some(frame)) = rx.recv().await {
            if arrive.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut took = Vec::new();
    if first {
        leave.send(frame(bytes)).await?;
    }
    let mut began = Instant::now();
    for _ in 0..rounds {
        let came = arrivals.recv().await.ok_or("the other end is gone")?;
        spawn_blocking(move || compute(work)).await?;
        leave.send(came).await?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
        began = Instant::now();
    }
    Ok(took)
}

async fn on<F: Future + Send + 'static>(net: &Net, whose: &str, work: F) -> Result<F::Output>
where
    F::Output: Send,
{
    let runtime = if whose == "network" { net.runtime() } else { tokio::runtime::Handle::current() };
    Ok(runtime.spawn(work).await?)
}

async fn met(net: &Net) -> Result<node::ids::PeerId> {
    let mut state = net.state();
    state.until(|state| !state.members.is_empty()).await;
    state.read(|state| state.members.first().copied()).ok_or_else(|| "no member".into())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let get = |n: usize, usual: &str| arguments.get(n).cloned().unwrap_or_else(|| usual.into());
    let (protocol, whose) = (get(0, "tcp"), get(4, "own"));
    let (bytes, rounds): (usize, usize) = (get(1, "1152").parse()?, get(3, "600").parse()?);
    let work = Duration::from_micros(get(2, "3000").parse()?);
    if let Some(at) = arguments.get(5) {
        let mesh = MeshKey::new(Key::from_seed([5; 32]));
        let net = net(&mesh, &protocol, vec![at.parse()?])?;
        let other = met(&net).await?;
        println!("met");
        std::io::stdout().flush()?;
        let _ = on(&net, &whose, stage(branch(&net)?, other, work, bytes, rounds, false)).await?;
        return Ok(());
    }
    let net = net(&MeshKey::new(Key::from_seed([5; 32])), &protocol, Vec::new())?;
    net.listens().await;
    let at = net.state().read(|state| state.listening[0].clone());
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            &protocol,
            &bytes.to_string(),
            &work.as_micros().to_string(),
            &rounds.to_string(),
            &whose,
            &at.to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let other = met(&net).await?;
    let mut took = on(&net, &whose, stage(branch(&net)?, other, work, bytes, rounds, true)).await??;
    took.drain(..WARM.min(took.len()));
    took.sort_by(f64::total_cmp);
    let at = |share: f64| (took[((took.len() - 1) as f64 * share) as usize] - 2e6 * work.as_secs_f64()) / 2.0;
    println!(
        "{protocol} {bytes} B, {whose}: a hop takes {:.0} us (a tenth {:.0}, nine tenths {:.0})",
        at(0.5),
        at(0.1),
        at(0.9)
    );
    child.kill().ok();
    child.wait()?;
    Ok(())
}
