//! Which mesh this node belongs to, and how it is reached: from options, and from what the home directory remembers.

use std::net::ToSocketAddrs as _;
use std::path::Path;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::asked::Serve;
use crate::cli::failure::Failure;
use crate::limits::Limits;
use crate::real::p2p::identity::{Key, KeyError};
use crate::real::p2p::invite::{Invite, MeshKey, SCHEME};
use crate::real::p2p::ways::Way;
use crate::real::p2p::{Announce, Net, NetConfig};
use crate::real::whole::write_whole;

/// The port that nodes listen on where nobody says, TCP and UDP; another one where it is taken.
pub(in crate::cli) const PORT: u16 = 9338;

/// Addresses of members that are remembered.
const REMEMBERED_MAX: usize = 64;

/// How the network is to be set up.
///
/// # Errors
/// [`Failure::Usage`] for an option that makes no sense, [`Failure::Key`] for a key that cannot be read or kept.
pub(super) fn config(asked: &Serve, home: &Path) -> Result<NetConfig, Failure> {
    let key = Key::load_or_create(&home.join("identity.key"))?;
    let (join, invited) = doors(&asked.join)?;
    let mesh = match (&asked.secret, invited) {
        (Some(text), _) => MeshKey::new(Key::from_seed(secret(text)?)),
        (None, invited) => mesh_of(home, invited)?,
    };
    let mut remembered = remembered_addresses(home);
    remembered.retain(|address| !join.contains(address));
    let only = asked.protocol.unwrap_or_default().only();
    let listen = listening(&asked.listen, only)?;
    let announce = match asked.announce.as_slice() {
        [] => Announce::Listening,
        [one] if one == "none" => Announce::Only(Vec::new()),
        some => {
            Announce::Only(some.iter().map(|text| address(text, "--announce")).collect::<Result<_, _>>()?)
        }
    };
    Ok(NetConfig {
        key,
        mesh,
        listen,
        join,
        remembered,
        announce,
        only,
        mdns: !asked.no_mdns.unwrap_or(false),
        frame_bytes: Limits::default().frame_bytes,
    })
}

/// Where members listen, and the mesh that a token among these invites to.
fn doors(join: &[String]) -> Result<(Vec<Multiaddr>, Option<MeshKey>), Failure> {
    let (mut doors, mut mesh) = (Vec::new(), None);
    for text in join {
        if text.starts_with(SCHEME) {
            let invite: Invite = text.parse().map_err(|why| Failure::Usage(format!("--join: {why}")))?;
            doors.extend(invite.addresses);
            mesh = Some(invite.mesh);
        } else {
            doors.push(address(text, "--join")?);
        }
    }
    Ok((doors, mesh))
}

/// The mesh that a guest may ask, and where its members listen: as given, or as a node with this home remembers. Nothing is
/// written there.
///
/// # Errors
/// [`Failure::Usage`] where no mesh is known, or none of its members.
pub(in crate::cli) fn as_guest(
    join: &[String],
    given: Option<&str>,
    home: Option<&Path>,
) -> Result<(MeshKey, Vec<Multiaddr>), Failure> {
    let (mut addresses, invited) = doors(join)?;
    let known = |home: &Path| {
        let file = home.join("mesh.key");
        if file.exists() { Key::load_or_create(&file).map(|key| Some(MeshKey::new(key))) } else { Ok(None) }
    };
    let mesh = match (given, invited) {
        (Some(text), _) => Some(MeshKey::new(Key::from_seed(secret(text)?))),
        (None, Some(mesh)) => Some(mesh),
        (None, None) => home.map(known).transpose()?.flatten(),
    };
    if addresses.is_empty() {
        addresses = home.map(remembered_addresses).unwrap_or_default();
    }
    match mesh {
        Some(mesh) if !addresses.is_empty() => Ok((mesh, addresses)),
        Some(_) => Err(Failure::Usage(
            "where a member listens is not known: give its address, HOST:PORT, behind the token".into(),
        )),
        None => Err(Failure::Usage(
            "give the token of the mesh; `meshwright invite` prints it on a machine that belongs to it"
                .into(),
        )),
    }
}

/// The mesh that was invited to, or that of before, or a new one; and that from now on.
fn mesh_of(home: &Path, invited: Option<MeshKey>) -> Result<MeshKey, KeyError> {
    let file = home.join("mesh.key");
    match invited {
        None => Ok(MeshKey::new(Key::load_or_create(&file)?)),
        Some(mesh) => {
            mesh.key().save(&file)?;
            Ok(mesh)
        }
    }
}

fn remembered_addresses(home: &Path) -> Vec<Multiaddr> {
    let text = std::fs::read_to_string(home.join("members")).unwrap_or_default();
    text.lines().take(REMEMBERED_MAX).filter_map(|line| line.parse().ok()).collect()
}

/// Keeps the token of this mesh, and where its members listen, for the next start. What cannot be kept is only logged.
pub(super) fn remember(home: &Path, net: &Net) {
    let others: Vec<String> = net.roster().read(|roster| {
        let living = roster.others().filter(|member| member.alive);
        living.flat_map(|member| &member.addresses).take(REMEMBERED_MAX).map(ToString::to_string).collect()
    });
    let members = others.join("\n");
    let kept = match members.is_empty() {
        true => Ok(()),
        false => write_whole(&home.join("members"), members.as_bytes(), false),
    };
    let invite = net.invite().to_string();
    if let Err(why) = kept.and_then(|()| write_whole(&home.join("invite"), invite.as_bytes(), true)) {
        let home = home.display();
        tracing::warn!(
            "{home}: cannot remember the mesh ({why}): the next start knows what the last one did"
        );
    }
}

/// The token that a running node keeps in its home directory.
///
/// # Errors
/// [`Failure::Read`] where none has run there.
pub(in crate::cli) fn kept_invite(home: &Path) -> Result<String, Failure> {
    let file = home.join("invite");
    std::fs::read_to_string(&file).map_err(|cause| Failure::Read { file, cause })
}

fn secret(text: &str) -> Result<[u8; 32], Failure> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Failure::Usage(
            "--secret: 64 hexadecimal digits are expected; `openssl rand -hex 32` makes some".into(),
        )
    })
}

/// Whether the usual port is free, for TCP and for UDP.
pub(in crate::cli) fn is_port_free() -> bool {
    let any = "0.0.0.0";
    std::net::TcpListener::bind((any, PORT)).is_ok() && std::net::UdpSocket::bind((any, PORT)).is_ok()
}

/// Where to listen. Without a wish: the usual port, or any where that is taken.
fn listening(asked: &[String], only: Option<Way>) -> Result<Vec<Multiaddr>, Failure> {
    let suits = |address: &Multiaddr| only.is_none_or(|only| Way::of(address) == Some(only));
    if !asked.is_empty() {
        let all: Vec<_> = asked.iter().map(|text| address(text, "--listen")).collect::<Result<_, _>>()?;
        return match all.iter().find(|address| !suits(address)) {
            Some(other) => Err(Failure::Usage(format!(
                "--listen: {other} is not of --protocol {}: leave out one of the two",
                only.map_or("auto", Way::name)
            ))),
            None => Ok(all),
        };
    }
    let port = if is_port_free() { PORT } else { 0 };
    let any = Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED);
    let quic = any.clone().with(Protocol::Udp(port)).with(Protocol::QuicV1);
    Ok([any.with(Protocol::Tcp(port)), quic].into_iter().filter(suits).collect())
}

/// An address as libp2p writes it, or `HOST:PORT` for TCP.
fn address(text: &str, option: &str) -> Result<Multiaddr, Failure> {
    if text.starts_with('/') {
        return text.parse().map_err(|why| Failure::Usage(format!("{option}: `{text}`: {why}")));
    }
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    let found = found.ok_or_else(|| {
        Failure::Usage(format!(
            "{option}: `{text}` is no address: write HOST:PORT, /ip4/1.2.3.4/tcp/{PORT}, or a token"
        ))
    })?;
    Ok(Multiaddr::from(found.ip()).with(Protocol::Tcp(found.port())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn addresses_are_written_as_people_do_or_as_libp2p_does() {
        let of = |text| address(text, "--join").map(|address| address.to_string());
        assert_eq!(of("127.0.0.1:80").unwrap(), "/ip4/127.0.0.1/tcp/80");
        assert_eq!(of("[::1]:80").unwrap(), "/ip6/::1/tcp/80");
        assert_eq!(of("/ip4/1.2.3.4/udp/5/quic-v1").unwrap(), "/ip4/1.2.3.4/udp/5/quic-v1");
        for wrong in ["", "here", "1.2.3.4", "/ip4/300.0.0.1/tcp/5"] {
            assert!(matches!(of(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_node_listens_in_the_protocol_asked_for() {
        let ways = |only| -> Vec<_> { listening(&[], only).unwrap().iter().filter_map(Way::of).collect() };
        assert_eq!(ways(None), Way::ALL);
        assert_eq!(ways(Some(Way::Tcp)), [Way::Tcp]);
        assert_eq!(ways(Some(Way::Quic)), [Way::Quic]);
        let why = listening(&["127.0.0.1:80".into()], Some(Way::Quic)).unwrap_err().to_string();
        assert!(why.contains("/tcp/80") && why.contains("--protocol quic"), "{why}");
    }

    #[test]
    fn a_mesh_is_kept_until_another_invites() {
        let home = tempfile::tempdir().unwrap();
        let own = config(&Serve::default(), home.path()).unwrap();
        assert_eq!(config(&Serve::default(), home.path()).unwrap().mesh.id(), own.mesh.id());
        let other = MeshKey::new(Key::generate());
        let invite = Invite { mesh: other.clone(), addresses: vec!["/ip4/1.2.3.4/tcp/5".parse().unwrap()] };
        let asked = Serve { join: vec![invite.to_string()], ..Serve::default() };
        let joined = config(&asked, home.path()).unwrap();
        assert_eq!((joined.mesh.id(), joined.join), (other.id(), invite.addresses));
        assert_eq!(config(&Serve::default(), home.path()).unwrap().mesh.id(), other.id());
        let given = Serve { secret: Some("ab".repeat(32)), ..Serve::default() };
        assert_ne!(config(&given, home.path()).unwrap().mesh.id(), other.id());
        assert_eq!(config(&given, home.path()).unwrap().key.peer(), own.key.peer());
        let short = Serve { secret: Some("abcd".into()), ..Serve::default() };
        assert!(matches!(config(&short, home.path()), Err(Failure::Usage(_))));
    }
}
