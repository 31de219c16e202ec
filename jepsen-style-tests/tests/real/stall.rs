//! A reader that stalls for five seconds amid a crowd is at most 300 ms behind when it returns.
//!
//! Measured is the time from its return until a frame is as new as those of a reader that never stalled. Once with the kernel's
//! usual buffers, once with small ones.

use std::time::Duration;

use anyhow::{Context, ensure};
use marchland_edge::client::{ClientOptions, Heard, Login, PlayerClient};
use marchland_jepsen::cluster::ReadyNode;
use marchland_jepsen::web;
use marchland_proto::net::TokioTransport;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::scene::{Load, Outcome, Scene};

const CROWD: usize = 50;
const STALL: Duration = Duration::from_secs(5);
const BEHIND_MAX: Duration = Duration::from_millis(300);
/// A frame that is at most two ticks older than the reference's is as new as can be told.
const UP_TO_DATE_MS: u64 = 100;
const SMALL_BUFFER_BYTES: libc::c_int = 4 * 1024;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    // Small, so that everybody sees many others.
    let mut cluster = scene.cluster(&["--open-ground-m", "60"])?;
    cluster.start().await?;
    let mut load = Load::start(&cluster, CROWD, &scene.folder.join("history.jsonl"))?;
    let node = cluster.ready()?.nodes[0].clone();
    let (newest, told) = watch::channel((0, 0));
    let reference = tokio::spawn(read_always(join(&node, "reference").await?, newest));
    sleep(Duration::from_secs(6)).await;

    let usual = stalled(&node, "stalls", None, &told).await?;
    let small = stalled(&node, "stalls-small", Some(SMALL_BUFFER_BYTES), &told).await?;
    reference.abort();
    load.settle().await?;
    cluster.unharmed()?;
    load.judge(&cluster, &["move"]).await?;
    cluster.stop().await?;
    for (returned, buffers) in [(&usual, "usual"), (&small, "small")] {
        ensure!(returned.behind <= BEHIND_MAX, "behind for {:?} with {buffers} buffers", returned.behind);
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

async fn join(node: &ReadyNode, name: &str) -> anyhow::Result<PlayerClient<TcpStream>> {
    let (code, body) = web::get(&node.http, &format!("/play/token?name={name}")).await?;
    ensure!(code == 200, "{code} {body}");
    let answer: serde_json::Value = serde_json::from_str(&body)?;
    let token = answer["token"].as_str().context("no token")?.to_owned();
    let login = Login::SignIn { token, character_name: name.to_owned() };
    Ok(PlayerClient::connect(&TokioTransport, node.players(), &ClientOptions::default(), &login).await?)
}

/// Reads every frame at once and says which is the newest, with its region time.
async fn read_always(mut client: PlayerClient<TcpStream>, newest: watch::Sender<(u64, u64)>) {
    while let Ok(heard) = client.next().await {
        if let Heard::Frame(info) = heard {
            newest.send_replace((info.tick, info.server_ms));
        }
    }
}

/// How a reader found the world when it came back.
struct Returned {
    /// Time from its return until it was up to date.
    behind: Duration,
    /// Frames that it took until then.
    frames: u64,
    /// Others in view.
    visible: usize,
}

/// Reads for a while, stalls, and returns.
async fn stalled(
    node: &ReadyNode,
    name: &str,
    buffer_bytes: Option<libc::c_int>,
    newest: &watch::Receiver<(u64, u64)>,
) -> anyhow::Result<Returned> {
    let mut client = join(node, name).await?;
    if let Some(bytes) = buffer_bytes {
        shrink(client.stream().context("no stream")?, bytes)?;
    }
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
    sleep(STALL).await;
    let returned = Instant::now();
    let mut frames = 0;
    // What waited in the kernel's buffers comes first, in order; it is up to date once a frame is as new as the reference's.
    while returned.elapsed() < STALL {
        if let Heard::Frame(info) = client.next().await.context("after the stall")? {
            frames += 1;
            let (tick, server_ms) = *newest.borrow();
            ensure!(tick > 0, "the reference reader has seen nothing");
            if info.server_ms + UP_TO_DATE_MS >= server_ms {
                ensure!(client.view.faults().is_empty(), "{:?}", client.view.faults());
                return Ok(Returned { behind: returned.elapsed(), frames, visible: info.visible });
            }
        }
    }
    anyhow::bail!("not up to date {STALL:?} after its return")
}

/// Makes the socket's receive buffer small.
fn shrink(stream: &TcpStream, bytes: libc::c_int) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the option takes a pointer to an int, which lives over the call, and its size.
    let failed = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    } != 0;
    ensure!(!failed, "SO_RCVBUF: {}", std::io::Error::last_os_error());
    Ok(())
}
