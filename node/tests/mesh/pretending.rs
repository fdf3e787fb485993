//! Members that say they serve a model and do not: real ones, whose word everybody believes first. There are two, as one more
//! replica than needed is kept ready anyway.

use std::path::Path;
use std::time::{Duration, Instant};

use node::membership::{Offer, Profile, State};
use node::real::gguf::fingerprint;
use node::real::p2p::identity::Key;
use node::real::p2p::invite::MeshKey;
use node::real::p2p::{Announce, Net, NetConfig};
use planner::model::gguf::GgufFile;

use crate::asking::Question;
use crate::models::{GEMMA, SMOL, hosts, until};
use crate::process::{PATIENCE, Process, SECRET, Start, gemma3, mesh, smollm2, turn};

/// A member that joins `other` and says that it serves the model; with `shows` it gives those who ask its header.
struct Pretender {
    name: String,
    net: Net,
    /// Where it listens. Others must be told: nobody tells others an address on loopback, and who cannot be called is
    /// probed through others alone, which a busy machine does not always do in time.
    listen: String,
}

impl Pretender {
    fn join(name: &str, other: &Process, model: &Path, shows: bool) -> Self {
        let file = GgufFile::open(model).unwrap();
        let (print, shape) = (fingerprint(&file).unwrap(), file.model().unwrap());
        let profile = Profile {
            name: name.into(),
            devices: vec![planner::fleet::catalog::device("rtx-4090").unwrap()],
            models: vec![Offer::of(SMOL, print, &shape)],
            ..Profile::default()
        };
        let seed = std::array::from_fn(|i| u8::from_str_radix(&SECRET[2 * i..2 * i + 2], 16).unwrap());
        let config = NetConfig {
            key: Key::generate(),
            mesh: MeshKey::new(Key::from_seed(seed)),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            join: vec![other.listen.parse().unwrap()],
            remembered: Vec::new(),
            announce: Announce::Listening,
            mdns: false,
            only: None,
            frame_bytes: 1 << 20,
        };
        let net = Net::start(config, profile).unwrap();
        net.runtime().block_on(net.listens());
        let listen = net.state().read(|state| state.listening[0].to_string());
        if shows {
            net.show([(print, vec![model.to_owned()])].into());
        }
        net.report(State { served: vec![SMOL.into()], ..State::default() });
        Self { name: name.into(), net, listen }
    }

    fn is_known_to(&self, node: &Process) -> bool {
        let health = node.health();
        let peers = health["peers"].as_array().unwrap();
        peers.iter().any(|peer| peer["name"] == self.name.as_str() && peer["serves"][0] == SMOL)
    }
}

/// Asks until there is an answer, as an official client does that is told when to come again.
fn insist(question: &Question, node: &Process) -> String {
    let began = Instant::now();
    loop {
        let (code, said) = question.status(node.api);
        if code == 200 {
            return said["choices"][0]["text"].as_str().unwrap().to_owned();
        }
        assert!(code == 503 && began.elapsed() < PATIENCE, "{code}: {said}\n{}", node.log());
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn is_found_out(shows: bool) {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (smol, gemma) = (smollm2(), gemma3());
    std::os::unix::fs::symlink(&smol, folder.path().join(smol.file_name().unwrap())).unwrap();
    let question = Question::greedy("The history of the steam engine begins", 24).of(SMOL);
    let truth = question.answer(mesh(&smol, &[])[0].api);

    let a = Start::new("a", &gemma).up();
    let pretenders = ["p", "q"].map(|name| Pretender::join(name, &a, &smol, shows));
    until("they are known", &[&a], |a| pretenders.iter().all(|pretender| pretender.is_known_to(a)));
    if shows {
        // A machine whose first word of the mesh is theirs comes up all the same.
        let mut first = Start { model: None, ..Start::new("e", &gemma) };
        first.join.push(pretenders[0].listen.clone());
        assert_eq!(first.up().said["serving"], false);
    }
    let start = |start: Start<'_>, others: &[&Process]| {
        let mut start = start.join(others);
        start.join.extend(pretenders.iter().map(|pretender| pretender.listen.clone()));
        start.up()
    };
    let b = start(Start::standby("b", folder.path()), &[&a]);
    let guest = |name| start(Start { model: None, ..Start::new(name, &gemma) }, &[&a, &b]);
    let (c, d) = (guest("c"), guest("d"));
    let all = |node: &Process| pretenders.iter().all(|pretender| pretender.is_known_to(node));
    until("all know them", &[&b, &c, &d], all);
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        hosts(&a, SMOL).iter().all(|host| host != "b"),
        "it is believed: somebody serves it\n{}",
        b.log()
    );

    let in_vain = a.log().matches("no longer offers the model").count();
    assert!(
        in_vain <= 2,
        "who shows no header is asked in vain over and over, or told of each time\n{}",
        a.log()
    );
    let began = Instant::now();
    let answers = std::thread::scope(|scope| {
        let asking = [&a, &c, &d].map(|node| scope.spawn(|| insist(&question, node)));
        asking.map(|asked| asked.join().unwrap_or_else(|_| panic!("b: {}\na: {}", b.log(), a.log())))
    });
    println!("answered after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(answers, [truth.clone(), truth.clone(), truth], "{}", b.log());
    assert_eq!(hosts(&b, SMOL), ["b"]);
    assert_eq!(hosts(&a, GEMMA), ["a"], "what has nothing to do with it stays");
    pretenders.into_iter().for_each(|pretender| drop(pretender.net));
}

#[test]
fn who_says_it_serves_and_never_answers_is_found_out() {
    is_found_out(true);
}

#[test]
fn who_says_it_serves_and_does_not_even_know_the_model_is_found_out() {
    is_found_out(false);
}
