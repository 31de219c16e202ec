//! The pages over real sockets: what each answers, and that strangers can lean on none of the bounds.

#![allow(missing_docs)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::{Node, world};
use marchland_admin::MemberPages;
use marchland_admin::http::{CONNECTIONS_MAX, router, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

async fn start(node: Node) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, router(Arc::new(node)), async { drop(stopped.await) }));
    (address, stop, served)
}

/// Sends bytes, reads until the other end closes.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other end may have refused and closed before all of it was sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, "GET", path, "").await
}

async fn ask(address: &str, method: &str, path: &str, fields: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n");
    let answer = exchange(address, request.as_bytes()).await;
    (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), answer)
}

#[tokio::test]
async fn every_page_answers() {
    let (address, _stop, _) = start(Node::new(1, &world())).await;
    for (path, expected, holds) in [
        ("/healthz", 200, "ok"),
        ("/readyz", 200, "ready"),
        ("/metrics", 200, "marchland_clients 3"),
        ("/status.json", 200, "\"group\":\"region(1,1)\""),
        ("/", 200, "<title>Marchland cluster</title>"),
        ("/dashboard.js", 200, "status.json"),
        ("/dashboard.css", 200, "color-scheme"),
        ("/play", 200, "<title>Marchland</title>"),
        ("/play/codec.js", 200, "text/javascript"),
        ("/play/style.css", 200, "text/css"),
        ("/play/map.json", 200, "side_m"),
        ("/play/token?name=Ada", 200, "{\"token\":\"t-Ada\",\"world\":\"aurora\",\"ws\":\"ws://127.0.0.1:1\"}"),
        ("/play/token?name=", 400, "name must have"),
        ("/play/token?name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 400, "name must have"),
        ("/play/token?name=%ff%00", 400, ""),
        ("/play/../../Cargo.toml", 404, "no such page"),
        ("/play/test/codec.test.mjs", 404, "no such page"),
        ("/etc/passwd", 404, "no such page"),
    ] {
        let (code, answer) = get(&address, path).await;
        assert_eq!(code, expected, "{path}: {answer}");
        assert!(answer.contains(holds), "{path}: {answer}");
        assert!(answer.contains("nosniff") && answer.contains("content-security-policy"), "{path}: {answer}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/healthz", "/play/token?name=Ada", "/status.json"] {
            assert_eq!(ask(&address, method, path, "").await.0, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_why_and_still_lives() {
    let mut node = Node::new(1, &world());
    node.ready = Err("region(1,1) has no owner".into());
    node.mints = false;
    let (address, _stop, _) = start(node).await;
    let (code, answer) = get(&address, "/readyz").await;
    assert!(code == 503 && answer.contains("region(1,1) has no owner"), "{answer}");
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert_eq!(get(&address, "/play/token?name=Ada").await.0, 404, "only in development");
}

#[tokio::test]
async fn status_is_readable_for_pages_of_members_alone() {
    let mut node = Node::new(1, &world());
    node.members = vec![MemberPages { node: 2, http: "http://10.0.0.2:7202".into() }];
    let (address, _stop, _) = start(node).await;
    let readable = async |origin: &str| {
        let (_, answer) = ask(&address, "GET", "/status.json", &format!("origin: {origin}\r\n")).await;
        answer.contains(&format!("access-control-allow-origin: {origin}"))
    };
    assert!(readable("http://10.0.0.2:7202").await);
    assert!(!readable("http://evil.example").await);
}

#[tokio::test]
async fn rubbish_and_oversized_heads_are_refused_and_slow_ones_cut_off() {
    let (address, _stop, _) = start(Node::new(1, &world())).await;
    for rubbish in [&[0xff; 4096][..], b"\r\n\r\n\r\n", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = exchange(&address, rubbish).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    assert!(!exchange(&address, long.as_bytes()).await.contains("200 OK"));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(!exchange(&address, many.as_bytes()).await.contains("200 OK"));
    assert_eq!(get(&address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn idle_strangers_hold_their_places_for_five_seconds_only() {
    let (address, _stop, _) = start(Node::new(1, &world())).await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /healthz HTT").await.unwrap();
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = tokio::time::Instant::now();
    let (code, _) = get(&address, "/healthz").await;
    assert_eq!(code, 200, "served once the idle ones are gone");
    assert!(begun.elapsed() > Duration::from_secs(2), "all places were taken");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_too() {
    let (address, stop, served) = start(Node::new(1, &world())).await;
    let _idle = TcpStream::connect(&address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    timeout(Duration::from_secs(3), served).await.expect("stops within its drain time").unwrap();
}
