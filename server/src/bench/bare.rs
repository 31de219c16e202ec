//! The baseline of `crowd`: a bare tokio-tungstenite server that sends frames of the same size at the same rate, without a
//! world, without interest, without durability but for one `fdatasync` a tick.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::{SinkExt, StreamExt};
use marchland_types::limits::TICK_MS;
use marchland_types::seam::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::seams::SystemClock;

/// Arguments of the hidden `marchland bench bare`.
#[derive(Args, Clone, Debug)]
pub(super) struct BareArgs {
    /// Port on loopback.
    #[arg(long)]
    port: u16,
    /// Bytes of one frame.
    #[arg(long)]
    frame_bytes: usize,
    /// File that is synced once a tick.
    #[arg(long)]
    sync: PathBuf,
}

pub(super) async fn run(args: BareArgs) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(&args.sync).with_context(|| format!("can not make {}", args.sync.display()))?;
    std::thread::Builder::new().name("sync".into()).spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(TICK_MS));
            if file.write_all(&[0; 512]).and_then(|()| file.sync_data()).is_err() {
                return;
            }
        }
    })?;
    let (done, wait) = tokio::sync::oneshot::channel::<anyhow::Result<()>>();
    // One thread serves all sockets, as in an edge.
    std::thread::Builder::new().name("bare".into()).spawn(move || {
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, serve(args.port, args.frame_bytes)));
        // Whoever waits may have gone.
        let _ = done.send(result);
    })?;
    wait.await.context("the server's thread ended")?
}

async fn serve(port: u16, frame_bytes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let clock = SystemClock::start();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = player(stream, frame_bytes, clock).await {
                eprintln!("bare server: {error}");
            }
        });
    }
}

async fn player(stream: TcpStream, frame_bytes: usize, clock: SystemClock) -> anyhow::Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            heard = socket.next() => match heard {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            _ = ticks.tick() => {
                // The time goes first, as a player reads it.
                let mut frame = vec![0x5a; frame_bytes.max(8)];
                frame[..8].copy_from_slice(&clock.wall_ms().to_le_bytes());
                if socket.send(Message::Binary(frame.into())).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
