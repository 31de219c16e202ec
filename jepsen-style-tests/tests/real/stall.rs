//! A reader that stalls for five seconds amid a crowd is at most 300 ms behind when it returns.
//!
//! Measured is the time from its return until its newest frame is less than 300 ms older than that of a reader that never
//! stalled. On a machine so busy that frames come more than 150 ms apart, two such gaps are granted instead. Once with the kernel's usual buffers, once with small ones.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_jepsen::cluster::ReadyNode;
use marchland_jepsen::web;
use marchland_proto::net::{TokioTransport, Transport};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::scene::{Load, Outcome, Scene};

const CROWD: usize = 50;
const STALL: Duration = Duration::from_secs(5);
const BEHIND_MAX: Duration = Duration::from_millis(300);
/// A frame that is less than six ticks older than the reference's is up to date.
const UP_TO_DATE_MS: u64 = 299;
const SMALL_BUFFER_BYTES: u32 = 2 * 1024;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    // Small, so that everybody sees many others.
    let mut cluster = scene.cluster(&["--open-ground-m", "60"])?;
    cluster.start().await?;
    let mut load = Load::start(&cluster, CROWD, &scene.folder.join("history.jsonl"))?;
    let node = cluster.ready()?.nodes[0].clone();
    let (newest, told) = watch::channel(Newest::default());
    let reference = tokio::spawn(read_always(join(&node, "reference", None).await?, newest));
    load.until_acknowledged(10 * CROWD).await?;

    let usual = stalled(&node, "stalls", None, &told).await?;
    let small = stalled(&node, "stalls-small", Some(SMALL_BUFFER_BYTES), &told).await?;
    reference.abort();
    load.settle().await?;
    cluster.unharmed()?;
    load.judge(&cluster, &["move"]).await?;
    cluster.stop().await?;
    for (returned, buffers) in [(&usual, "usual"), (&small, "small")] {
        let Returned { behind, granted, frames, .. } = returned;
        ensure!(behind <= granted, "behind for {behind:?} and {frames} frames with {buffers} buffers");
    }
    Ok(Outcome::Shown(format!(
        "up to date {} ms after its return with usual buffers ({} frames), {} ms with small ones ({} frames); {} in view",
        usual.behind.as_millis(),
        usual.frames,
        small.behind.as_millis(),
        small.frames,
        usual.visible
    )))
}

async fn join(node: &ReadyNode, name: &str, buffer_bytes: Option<u32>) -> anyhow::Result<PlayerClient<TcpStream>> {
    let (code, body) = web::get(&node.http, &format!("/play/token?name={name}")).await?;
    ensure!(code == 200, "{code} {body}");
    let answer: serde_json::Value = serde_json::from_str(&body)?;
    let token = answer["token"].as_str().context("no token")?.to_owned();
    let login = Login::SignIn { token, character_name: name.to_owned() };
    Ok(PlayerClient::connect(&Buffered(buffer_bytes), node.players(), &ClientOptions::default(), &login).await?)
}

/// Reads every frame at once and says which is the newest, with its region time.
async fn read_always(mut client: PlayerClient<TcpStream>, newest: watch::Sender<Newest>) {
    let mut before = Instant::now();
    while let Ok(heard) = client.next().await {
        if let Heard::Frame(info) = heard {
            let gap = before.elapsed();
            before = Instant::now();
            newest.send_replace(Newest { tick: info.tick, server_ms: info.server_ms, gap });
        }
    }
}

/// The newest frame of the reader that never stalls.
#[derive(Clone, Copy, Default)]
struct Newest {
    tick: u64,
    /// Region time.
    server_ms: u64,
    /// Since the frame before.
    gap: Duration,
}

/// How a reader found the world when it came back.
struct Returned {
    /// Time from its return until it was up to date.
    behind: Duration,
    /// As long as that may be.
    granted: Duration,
    /// Frames that it took until then.
    frames: u64,
    /// Others in view.
    visible: usize,
}

/// Reads for a while, stalls, and returns.
async fn stalled(
    node: &ReadyNode,
    name: &str,
    buffer_bytes: Option<u32>,
    newest: &watch::Receiver<Newest>,
) -> anyhow::Result<Returned> {
    let mut client = join(node, name, buffer_bytes).await?;
    // Up to date at first.
    let reading = async {
        loop {
            if let Err(error) = client.next().await {
                return error;
            }
        }
    };
    if let Ok(error) = timeout(Duration::from_secs(2), reading).await {
        return Err(error).context("before the stall");
    }
    let (mut following, mut longest_gap) = (newest.clone(), Duration::ZERO);
    let follow = async {
        while following.changed().await.is_ok() {
            longest_gap = longest_gap.max(following.borrow_and_update().gap);
        }
    };
    ensure!(timeout(STALL, follow).await.is_err(), "the reference reader has lost its connection");
    let returned = Instant::now();
    let mut frames = 0;
    // What waited in the kernel's buffers comes first, in order; it is up to date once a frame is as new as the reference's.
    while returned.elapsed() < STALL {
        if let Heard::Frame(info) = client.next().await.context("after the stall")? {
            frames += 1;
            let Newest { tick, server_ms, .. } = *newest.borrow();
            ensure!(tick > 0, "the reference reader has seen nothing");
            if info.server_ms + UP_TO_DATE_MS >= server_ms {
                ensure!(client.view.faults().is_empty(), "{:?}", client.view.faults());
                return Ok(Returned {
                    behind: returned.elapsed(),
                    granted: BEHIND_MAX.max(2 * longest_gap),
                    frames,
                    visible: info.visible,
                });
            }
        }
    }
    anyhow::bail!("not up to date {STALL:?} after its return")
}

/// TCP whose receive buffer has a given size from the first packet on: a window that was once offered can not be taken back.
#[derive(Clone)]
struct Buffered(Option<u32>);

impl Transport for Buffered {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.0 {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(address.parse().map_err(std::io::Error::other)?).await
    }

    async fn listen(&self, address: &str) -> std::io::Result<TcpListener> {
        TokioTransport.listen(address).await
    }
}
