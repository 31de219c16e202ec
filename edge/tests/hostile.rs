//! Clients that break the rules, and clients that nobody can help: refused with a reason, never a panic, never a place held.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use marchland_edge::{EdgeLimits, EdgeOptions, SessionConfig};
use marchland_proto::client::{
    ClientMessage, Commands, Goodbye, Hello, Input, Ping, ServerMessage, SignIn, client_message::Body, hello::How, server_message,
};
use marchland_proto::codes::Code;
use prost::Message as _;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

type Raw = WebSocketStream<TcpStream>;

async fn raw(address: SocketAddr, subprotocol: Option<&str>) -> Result<Raw, WsError> {
    let mut request = format!("ws://{address}/any/path?x=1").into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", name.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await?;
    tokio_tungstenite::client_async(request, stream).await.map(|(ws, _)| ws)
}

fn message(body: Body) -> Message {
    Message::Binary(ClientMessage { body: Some(body) }.encode_to_vec().into())
}

fn hello(token: &str) -> Message {
    let how = How::SignIn(SignIn { token: token.into(), character_name: "eve".into() });
    message(Body::Hello(Hello { protocol_version: 1, how: Some(how), client_name: String::new() }))
}

/// The code with which the server ends a connection, and that of its close frame.
async fn ended(ws: &mut Raw) -> (Option<Code>, Option<u16>) {
    let mut refused = None;
    let work = async {
        while let Some(Ok(message)) = ws.next().await {
            match message {
                Message::Binary(bytes) => {
                    if let Some(server_message::Body::Refused(why)) = ServerMessage::decode(bytes).unwrap().body {
                        assert!(!why.reason.is_empty());
                        refused = Code::from_u32(why.code);
                    }
                }
                Message::Close(frame) => return (refused, frame.map(|frame| u16::from(frame.code))),
                _ => {}
            }
        }
        (refused, None)
    };
    tokio::time::timeout(Duration::from_secs(8), work).await.expect("the connection is ended")
}

async fn playing(address: SocketAddr) -> Raw {
    let mut ws = raw(address, Some("marchland.v1")).await.unwrap();
    ws.send(hello("token")).await.unwrap();
    let first = ws.next().await.unwrap().unwrap();
    let first = ServerMessage::decode(first.into_data()).unwrap();
    assert!(matches!(first.body, Some(server_message::Body::Welcome(_))), "{first:?}");
    ws
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_broken_rule_has_its_code() {
    let world = World::start(3).await;
    let edge = world.edge(world.options()).await;
    let at = edge.local_addr();
    let input = |seq| Input { seq, ..Input::default() };
    let commands =
        |seqs: Vec<u64>| message(Body::Commands(Commands { inputs: seqs.into_iter().map(input).collect(), acked_reply_seq: 0 }));
    let ping = || message(Body::Ping(Ping { client_ms: 1 }));
    let fresh: Vec<(Message, Code)> = vec![
        (ping(), Code::WrongState),
        (commands(vec![1]), Code::WrongState),
        (message(Body::Goodbye(Goodbye {})), Code::WrongState),
        (hello("stolen"), Code::BadToken),
        (Message::Text("hello".into()), Code::Malformed),
        (Message::Binary(vec![0xff; 100].into()), Code::Malformed),
        (Message::Binary(vec![].into()), Code::Malformed),
        (Message::Binary(hello("token").into_data().slice(..5)), Code::Malformed),
        (Message::Binary(vec![0; 5000].into()), Code::TooLarge),
    ];
    for (message, code) in fresh {
        let mut ws = raw(at, Some("marchland.v1")).await.unwrap();
        ws.send(message.clone()).await.unwrap();
        assert_eq!(ended(&mut ws).await, (Some(code), Some(4000 + code as u16)), "{message:?}");
    }
    let in_play: Vec<(Vec<Message>, Code)> = vec![
        (vec![hello("token")], Code::WrongState),
        (vec![commands(vec![2])], Code::SequenceGap),
        (vec![commands((1..=65).collect())], Code::TooLarge),
        (vec![ping(); 11], Code::TooMany),
        (vec![commands(vec![]); 130], Code::TooMany),
        (vec![Message::Ping(vec![1].into()); 130], Code::TooMany),
        ((0..5).map(|i| commands((i * 40 + 1..=i * 40 + 40).collect())).collect(), Code::TooMany),
        (vec![Message::Text("x".into())], Code::Malformed),
        (vec![Message::Binary(vec![0; 100_000].into())], Code::TooLarge),
    ];
    for (messages, code) in in_play {
        // Nobody applies anything, so that 129 inputs are on their way at once.
        let mut ws = playing(at).await;
        world.lock().paused = true;
        for message in &messages {
            // The server may have ended it already.
            if ws.send(message.clone()).await.is_err() {
                break;
            }
        }
        assert_eq!(ended(&mut ws).await.0, Some(code), "{:?} × {}", messages[0], messages.len());
        world.lock().paused = false;
    }
    let mut fine = playing(at).await;
    fine.send(ping()).await.unwrap();
    assert_eq!(edge.stats().clients, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_our_protocol_is_refused_at_the_door() {
    let world = World::start(3).await;
    let edge = world.edge(world.options()).await;
    for subprotocol in [None, Some("marchland.v2"), Some("chat")] {
        let Err(WsError::Http(response)) = raw(edge.local_addr(), subprotocol).await else { panic!("{subprotocol:?}") };
        assert_eq!(response.status(), 400);
    }
    assert!(raw(edge.local_addr(), Some("chat, marchland.v1")).await.is_ok());
    let mut seed = 1u64;
    for round in 0..60 {
        let mut stream = TcpStream::connect(edge.local_addr()).await.unwrap();
        let mut noise = vec![0u8; 4096];
        for byte in &mut noise {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 56) as u8;
        }
        let prefix: &[u8] = match round % 3 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\n",
            _ => {
                b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: marchland.v1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            }
        };
        // It may be closed at any byte.
        let _ = stream.write_all(prefix).await;
        for _ in 0..5 {
            let _ = stream.write_all(&noise).await;
        }
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut rest)).await.expect("closed in time");
    }
    let mut client = join(edge.local_addr(), "ada").await.unwrap();
    until(&mut client, "others in view", |client| client.view.newest().visible == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_limited_and_given_back() {
    let world = World::start(3).await;
    let limits = EdgeLimits {
        connections_per_address_max: 2,
        handshakes_max: 4,
        handshake_timeout: Duration::from_millis(300),
        ..EdgeLimits::default()
    };
    let edge = world.edge(EdgeOptions { limits, ..world.options() }).await;
    let _one = playing(edge.local_addr()).await;
    let two = playing(edge.local_addr()).await;
    let mut three = raw(edge.local_addr(), Some("marchland.v1")).await.unwrap();
    assert_eq!(ended(&mut three).await, (Some(Code::Full), Some(4011)));
    // Silent sockets hold a handshake for 0.3 s, not for ever.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(edge.local_addr()).await.unwrap());
    }
    drop(two);
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Ok(mut ws) = raw(edge.local_addr(), Some("marchland.v1")).await {
                ws.send(hello("token")).await.unwrap();
                let first = ServerMessage::decode(ws.next().await.unwrap().unwrap().into_data()).unwrap();
                if matches!(first.body, Some(server_message::Body::Welcome(_))) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_are_let_go() {
    let world = World::start(3).await;
    let session = SessionConfig {
        hello_deadline: Duration::from_millis(300),
        join_deadline: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(900),
        ..SessionConfig::of_world("aurora")
    };
    let edge = world.edge(EdgeOptions { session, ..world.options() }).await;
    let mut mute = raw(edge.local_addr(), Some("marchland.v1")).await.unwrap();
    let mut idle = playing(edge.local_addr()).await;
    assert_eq!(ended(&mut mute).await.0, Some(Code::IdleTimeout));
    assert_eq!(ended(&mut idle).await.0, Some(Code::IdleTimeout));
    // A region that never admits, and one that nobody owns.
    world.lock().admits_late = u32::MAX;
    let mut waiting = raw(edge.local_addr(), Some("marchland.v1")).await.unwrap();
    waiting.send(hello("token")).await.unwrap();
    assert_eq!(ended(&mut waiting).await.0, Some(Code::Unavailable));
    world.move_owner(0);
    let mut waiting = raw(edge.local_addr(), Some("marchland.v1")).await.unwrap();
    waiting.send(hello("token")).await.unwrap();
    assert_eq!(ended(&mut waiting).await.0, Some(Code::Unavailable));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(edge.stats().clients, 0);
}
