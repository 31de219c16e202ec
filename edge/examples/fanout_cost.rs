//! What a client costs an edge with everything below it: gRPC from the owner, pick, frame, WebSocket, socket.
//!
//! `cargo run --release -p marchland-edge --example fanout_cost -- 500`
//!
//! CPU time of the edge's own thread by `/proc`, per delivered frame; owner and players run on other threads of the same
//! process. Players send one command at 10 Hz each. Resident memory is of the whole process and says little; the crowd
//! measurement of the server has that. Baseline: the same thread sends as many bytes over bare tungstenite sockets.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use support::*;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const SECONDS: u64 = 10;

/// Nanoseconds that the threads with this name have run.
fn cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let of = |task: std::fs::DirEntry| -> Option<u64> {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        (comm.trim() == name).then(|| stat.split(' ').next()?.parse().ok()).flatten()
    };
    tasks.filter_map(|task| of(task.ok()?)).sum()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count: u64 = std::env::args().nth(1).map_or(500, |n| n.parse().expect("a number of players"));
    let world = World::start(40).await;
    let edge = world.edge(world.options()).await;
    let mut players = Vec::new();
    for i in 0..count {
        let address = edge.local_addr();
        players.push(tokio::spawn(async move {
            let mut client = join(address, &format!("player-{i}")).await.unwrap();
            let angle = i as f32 * 2.4;
            loop {
                client.next().await.unwrap();
                if (client.view.tick() + i) % 2 == 0 {
                    let turn = angle + client.view.tick() as f32 * 0.02;
                    client.input(walk(turn.cos(), turn.sin()), 100).unwrap();
                    client.flush().await.unwrap();
                }
            }
        }));
    }
    while edge.stats().clients < count {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, from_ns) = (edge.stats(), cpu_ns("edge"));
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (after, to_ns) = (edge.stats(), cpu_ns("edge"));
    let frames = after.frames - before.frames;
    let bytes = (after.frame_bytes - before.frame_bytes) / frames.max(1);
    println!(
        "players {count}, frames {frames}, skipped {}, ticks {}",
        after.frames_skipped - before.frames_skipped,
        after.ticks - before.ticks
    );
    println!("edge     {:>7.2} us of CPU per frame, {bytes} bytes", (to_ns - from_ns) as f64 / 1e3 / frames as f64);
    players.iter().for_each(|player| player.abort());
    edge.shutdown();
    let bare = bare(count, bytes as usize).await;
    println!("baseline {bare:>7.2} us of CPU per frame over bare tungstenite");
}

/// A thread that sends frames of the same size at the same rate and reads nothing.
async fn bare(count: u64, bytes: usize) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
            let mut sockets = Vec::new();
            for _ in 0..count {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                sockets.push(tokio_tungstenite::accept_async_with_config(stream, Some(config)).await.unwrap());
            }
            let mut tick = tokio::time::interval(TICK);
            let (start, mut sent) = (cpu_ns("bare"), 0);
            for _ in 0..SECONDS * 10 {
                tick.tick().await;
                for socket in &mut sockets {
                    socket.send(Message::Binary(vec![0; bytes].into())).await.unwrap();
                    sent += 1;
                }
            }
            (cpu_ns("bare") - start) as f64 / 1e3 / f64::from(sent)
        })
    };
    let server = std::thread::Builder::new().name("bare".into()).spawn(serve).unwrap();
    for _ in 0..count {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap();
        tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    }
    while !server.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.join().unwrap()
}
