#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use planner::fleet::{Delay, Device, DeviceKind, LinkClass, Network, NetworkId, Node};

use super::*;

fn network(delay_us: f64, bytes_per_s: f64) -> Network {
    Network {
        name: "lan".into(),
        class: LinkClass::Lan,
        delay: Delay { base_us: delay_us, jitter_us: 0.0 },
        bytes_per_s,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    }
}

fn fleet(nodes: usize, network: Network) -> Fleet {
    let device = Device {
        id: "any".into(),
        name: "any".into(),
        kind: DeviceKind::Cpu,
        memory_bytes: 1 << 30,
        reserved_bytes: 0,
        bandwidth_bytes_per_s: 1e9,
        bandwidth_efficiency: 1.0,
        flops: 1e9,
        flops_efficiency: 1.0,
        layer_overhead_us: 0.0,
        expert_overhead_us: 0.0,
        disk_bytes_per_s: 1e9,
        measured: None,
    };
    let node = |i| Node {
        name: format!("n{i}"),
        device: device.clone(),
        machine: format!("n{i}"),
        network: NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    };
    Fleet {
        nodes: (0..nodes).map(node).collect(),
        networks: vec![network],
        distances: Vec::new(),
        overrides: Vec::new(),
    }
}

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// A listener that `to` stands for, and a connection to it from `from` through an emulator.
fn joined(fleet: Fleet) -> (Emulator, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ends = [Ends::default(), Ends { tcp: Some(listener.local_addr().unwrap()), udp: None }];
    let emulator = Emulator::start(fleet, &ends, 1).unwrap();
    let near = TcpStream::connect(emulator.front(A, B).unwrap().tcp.unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (emulator, near, far)
}

#[test]
fn bytes_arrive_whole_and_in_order_both_ways_and_the_end_after_them() {
    let (_emulator, mut near, mut far) = joined(fleet(2, network(300.0, 1.25e8)));
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let copy = sent.clone();
    let sender = std::thread::spawn(move || {
        near.write_all(&copy).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).unwrap();
        answer
    });
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    far.write_all(&got[..1_000_000]).unwrap();
    drop(far);
    assert!(sender.join().unwrap() == sent[..1_000_000]);
}

#[test]
fn nothing_arrives_before_its_time() {
    let (_emulator, mut near, mut far) = joined(fleet(2, network(30_000.0, 1.25e8)));
    far.set_read_timeout(Some(Duration::from_millis(15))).unwrap();
    near.write_all(b"early").unwrap();
    let mut byte = [0];
    assert!(far.read(&mut byte).is_err(), "half of the delay has not passed");
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    far.read_exact(&mut byte).unwrap();
}

#[test]
fn what_the_receiver_does_not_take_waits_with_the_sender() {
    let (_emulator, mut near, _far) = joined(fleet(2, network(0.0, 1e9)));
    near.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0usize;
    let most = 256 << 20;
    while sent < most {
        match near.write(&[0; 65_536]) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    assert!(sent < most, "the window is a few MiB, and the system's buffers are too");
}

#[test]
fn a_peer_that_dies_is_missed_on_the_other_side() {
    let (_emulator, near, mut far) = joined(fleet(2, network(100.0, 1.25e8)));
    drop(near);
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn datagrams_go_there_and_back() {
    let there = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ends = [Ends::default(), Ends { tcp: None, udp: Some(there.local_addr().unwrap()) }];
    let emulator = Emulator::start(fleet(2, network(100.0, 1.25e8)), &ends, 1).unwrap();
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    here.connect(emulator.front(A, B).unwrap().udp.unwrap()).unwrap();
    here.send(b"hello").unwrap();
    let mut bytes = [0; 64];
    let (length, who) = there.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"hello");
    there.send_to(b"world", who).unwrap();
    let length = here.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"world");
}

#[test]
fn processes_of_one_machine_meet_without_a_network() {
    let mut fleet = fleet(3, network(100.0, 1.25e8));
    fleet.nodes[1].machine = "n0".into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let end = Ends { tcp: Some(listener.local_addr().unwrap()), udp: None };
    let emulator = Emulator::start(fleet, &[end; 3], 1).unwrap();
    let pairs: Vec<(u32, u32)> = emulator.fronts().keys().map(|(a, b)| (a.0, b.0)).collect();
    assert_eq!(pairs, [(0, 2), (1, 2), (2, 0), (2, 1)]);
}

#[test]
fn over_a_cut_nothing_passes_and_nothing_is_lost() {
    let (emulator, mut near, mut far) = joined(fleet(2, network(300.0, 1.25e8)));
    near.write_all(b"one").unwrap();
    let mut bytes = [0; 3];
    far.read_exact(&mut bytes).unwrap();
    emulator.cut_off([A]);
    // Longer than its thread sleeps.
    std::thread::sleep(Duration::from_millis(60));
    near.write_all(b"two").unwrap();
    far.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    assert!(far.read(&mut bytes).is_err(), "something passed");
    let dialled = TcpStream::connect(emulator.front(A, B).unwrap().tcp.unwrap()).unwrap();
    dialled.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let refused = (&dialled).read(&mut [0]).map_err(|why| why.kind());
    assert!(
        matches!(refused, Err(std::io::ErrorKind::WouldBlock)),
        "who dials is to hear nothing: {refused:?}"
    );
    emulator.cut_off([]);
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"two");
}
