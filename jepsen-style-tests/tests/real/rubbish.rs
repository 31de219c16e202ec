//! Random bytes at every port of every node: nothing crashes, nothing panics, and players notice nothing.
//!
//! Some come bare, some behind a beginning that gets them further in: a TLS record, an HTTP request, an upgraded WebSocket, a message of
//! the protocol that is cut short. The bytes are the same in every run.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_proto::client::{ClientMessage, Hello, SignIn, client_message::Body, hello::How};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::scene::{Load, Outcome, Scene, setting};

const PLAYERS: usize = 6;
/// Connections of rubbish to one port at a time.
const AT_ONCE: usize = 8;
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: marchland.v1\r\n\r\n";

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let bytes_per_port = setting("MARCHLAND_RUBBISH_BYTES", 65_536)?;
    let mut cluster = scene.cluster(&[])?;
    cluster.start().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until_acknowledged(2 * PLAYERS).await?;
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    let (mut connections, mut sent) = (0_u64, 0_u64);
    for node in cluster.ready()?.nodes.clone() {
        let http = node.http.strip_prefix("http://").context("an http address")?.to_owned();
        for address in [node.grpc.clone(), http, node.players().to_owned()] {
            let largest = (bytes_per_port / 64).clamp(1024, 64 * 1024);
            let mut left = bytes_per_port;
            let mut under_way = JoinSet::new();
            while left > 0 || !under_way.is_empty() {
                if left > 0 && under_way.len() < AT_ONCE {
                    let size = (1 + chance.next() % largest).min(left);
                    left -= size;
                    let rubbish: Vec<u8> = (0..size).map(|_| chance.next() as u8).collect();
                    under_way.spawn(send(address.clone(), beginning(&mut chance), rubbish));
                    connections += 1;
                } else if let Some(ended) = under_way.join_next().await {
                    ended?.with_context(|| format!("rubbish at {address}"))?;
                }
            }
            sent += bytes_per_port;
            cluster.unharmed()?;
        }
    }
    // And they still play.
    load.until_acknowledged(2 * PLAYERS).await?;
    load.settle().await?;
    cluster.unharmed()?;
    let verdict = load.judge(&cluster, &["move"]).await?;
    let lost = verdict.attached.0 - PLAYERS as u64;
    ensure!(lost == 0, "{lost} players lost their connections");
    cluster.stop().await?;
    Ok(Outcome::Shown(format!("{sent} bytes over {connections} connections to 9 ports; meanwhile {verdict}")))
}

/// xorshift: the same bytes in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

/// Something that a server takes, up to a point.
fn beginning(chance: &mut Chance) -> Vec<u8> {
    match chance.next() % 6 {
        // A TLS handshake record with a length that the rubbish fills or not.
        0 => vec![0x16, 0x03, 0x01, 0x01, 0x00],
        1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        2 => b"GET /play/".to_vec(),
        3 => UPGRADE.as_bytes().to_vec(),
        // Upgraded, and then a masked binary frame that holds the beginning of a sign-in.
        4 => {
            let sign_in = SignIn { token: "x".repeat(60), character_name: "nobody".into() };
            let hello = Hello { protocol_version: 1, how: Some(How::SignIn(sign_in)), client_name: String::new() };
            let message = ClientMessage { body: Some(Body::Hello(hello)) }.encode_to_vec();
            let cut = &message[..chance.next() as usize % message.len()];
            let mut bytes = UPGRADE.as_bytes().to_vec();
            bytes.extend([0x82, 0x80 | cut.len() as u8, 0, 0, 0, 0]);
            bytes.extend(cut);
            bytes
        }
        _ => Vec::new(),
    }
}

/// Sends and lets go. Being refused half-way is as it should be; a server that takes nothing at all is not.
async fn send(address: String, beginning: Vec<u8>, rubbish: Vec<u8>) -> anyhow::Result<()> {
    let connect = timeout(Duration::from_secs(8), TcpStream::connect(&address));
    let mut stream = connect.await.context("no connection within 8 s")??;
    let exchange = async {
        let mut answer = [0; 512];
        stream.write_all(&beginning).await?;
        stream.write_all(&rubbish).await?;
        stream.shutdown().await?;
        while stream.read(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Reset or silence: both are answers to rubbish. What counts is how the node is afterwards.
    let _ = timeout(Duration::from_millis(200), exchange).await;
    Ok(())
}
