//! A wall with doors between the nodes of a cluster: what one sends to another passes through here, or waits.
//!
//! Every ordered pair of nodes has a passage of its own, a port on loopback that copies bytes to the other node's. While a passage is shut
//! nothing is copied and nothing is refused, as with a cable that is cut: both ends wait, each for as long as it likes. Players and
//! operators do not pass through the wall.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// The passages of a cluster. Dropping it shuts them all for good.
pub struct Wall {
    /// By the nodes that speak, and are spoken to.
    open: BTreeMap<(u32, u32), watch::Sender<bool>>,
    addresses: BTreeMap<(u32, u32), String>,
    _passages: JoinSet<()>,
}

impl Wall {
    /// A wall with open doors between nodes, given with their cluster addresses.
    pub async fn between(nodes: &[(u32, String)]) -> anyhow::Result<Self> {
        let (mut open, mut addresses, mut passages) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        for (from, _) in nodes {
            for (to, address) in nodes.iter().filter(|(to, _)| to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                addresses.insert((*from, *to), listener.local_addr()?.to_string());
                let (door, passing) = watch::channel(true);
                open.insert((*from, *to), door);
                passages.spawn(passage(listener, address.clone(), passing));
            }
        }
        Ok(Self { open, addresses, _passages: passages })
    }

    /// Writes the passages into a node's configuration: where it believes the others to be.
    pub fn stands_around(&self, node: u32, config: &Path) -> anyhow::Result<()> {
        let mut text: toml::Table = std::fs::read_to_string(config)?.parse().context("configuration")?;
        let members = text.get_mut("members").and_then(toml::Value::as_array_mut).context("a configuration without members")?;
        for member in members.iter_mut().filter_map(toml::Value::as_table_mut) {
            let to = member.get("node").and_then(toml::Value::as_integer).context("a member without a number")?;
            if let Some(address) = self.addresses.get(&(node, u32::try_from(to)?)) {
                member.insert("grpc".into(), address.clone().into());
            }
        }
        std::fs::write(config, toml::to_string(&text)?)?;
        Ok(())
    }

    /// Cuts a node off from all others, in both directions, or lets it speak to them again.
    pub fn isolate(&self, node: u32, isolated: bool) {
        for ((from, to), door) in &self.open {
            if *from == node || *to == node {
                door.send_replace(!isolated);
            }
        }
    }
}

async fn passage(listener: TcpListener, to: String, open: watch::Receiver<bool>) {
    let mut streams = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        while streams.try_join_next().is_some() {}
        let (to, mut open) = (to.clone(), open.clone());
        streams.spawn(async move {
            // Behind a shut door nobody learns whether there is a node.
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let Ok(far) = TcpStream::connect(&to).await else { return };
            // The doors add no delay of their own.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(copy(near_in, far_out, open.clone()), copy(far_in, near_out, open));
        });
    }
}

/// Copies until one end closes. What was read when the door shut waits behind it.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let Ok(length) = from.read(&mut piece).await else { return };
        if open.wait_for(|open| *open).await.is_err() || length == 0 {
            // Dropping the half tells the other end.
            return;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_is_said_behind_a_shut_door_arrives_when_it_opens() {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [(1, "127.0.0.1:1".to_owned()), (2, node.local_addr().unwrap().to_string())];
        let wall = Wall::between(&nodes).await.unwrap();
        let mut near = TcpStream::connect(&wall.addresses[&(1, 2)]).await.unwrap();
        let (mut far, _) = node.accept().await.unwrap();
        let mut heard = [0; 5];
        near.write_all(b"first").await.unwrap();
        far.read_exact(&mut heard).await.unwrap();
        wall.isolate(1, true);
        near.write_all(b"later").await.unwrap();
        let waits = timeout(Duration::from_millis(200), far.read_exact(&mut heard)).await;
        assert!(waits.is_err(), "{heard:?}");
        wall.isolate(1, false);
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"later");
        drop(near);
        assert_eq!(far.read(&mut heard).await.unwrap(), 0);
    }
}
