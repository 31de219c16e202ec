//! A reader that stalls for five seconds is at most 300 ms behind when it returns, whatever its receive buffer.

mod support;

use std::time::Duration;

use marchland_proto::net::Tune;
use support::*;
use tokio::net::{TcpSocket, TcpStream};

/// TCP with a receive buffer of a given size.
#[derive(Clone)]
struct SmallBuffers(Option<u32>);

impl marchland_proto::net::Transport for SmallBuffers {
    type Stream = TcpStream;
    type Listener = tokio::net::TcpListener;

    async fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.0 {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address.parse().unwrap()).await?;
        stream.tune_for_cluster()?;
        Ok(stream)
    }

    async fn listen(&self, _: &str) -> std::io::Result<tokio::net::TcpListener> {
        unreachable!("a client does not listen")
    }
}

async fn stall(buffer: Option<u32>) {
    // Sixty-four in view and moving: about 300 bytes a frame, 30 kB in five seconds.
    let world = World::start(100).await;
    let mut options = world.options();
    options.interest.visible_max = 64;
    let edge = world.edge(options).await;
    let work = marchland_edge::client::PlayerClient::connect(
        &SmallBuffers(buffer),
        &edge.local_addr().to_string(),
        &Default::default(),
        &sign_in("ada"),
    )
    .await;
    let mut client = work.unwrap();
    until(&mut client, "others in view", |client| client.view.newest().visible == 64).await;
    let mut quick = join(edge.local_addr(), "bob").await.unwrap();
    let watching = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for _ in 0..90 {
            let at = tokio::time::Instant::now();
            quick.next().await.unwrap();
            longest = longest.max(at.elapsed());
        }
        longest
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (returned, now) = (tokio::time::Instant::now(), world.lock().tick);
    // What piled up is read at once; from then on at most six ticks behind.
    let mut frames = 0;
    while client.view.tick() + 6 < world.lock().tick {
        client.next().await.unwrap();
        check_shown(&world, &client);
        frames += 1;
    }
    let took = returned.elapsed();
    println!("receive buffer {buffer:?}: caught up after {took:?} and {frames} frames; skipped {}", edge.stats().frames_skipped);
    assert!(took < Duration::from_millis(300), "{took:?} until it is less than 300 ms behind");
    for _ in 0..20 {
        client.next().await.unwrap();
        check_shown(&world, &client);
        assert!(client.view.tick() + 6 >= world.lock().tick);
    }
    assert!(client.view.tick() > now);
    if buffer.is_some() {
        assert!(edge.stats().frames_skipped > 20, "a full socket is skipped: {:?}", edge.stats());
    }
    let longest = watching.await.unwrap();
    assert!(longest < Duration::from_millis(400), "others do not wait for it: {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_small_receive_buffer() {
    stall(Some(2048)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_default_receive_buffer() {
    stall(None).await;
}
