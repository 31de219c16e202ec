//! An edge from end to end over real sockets: joining, seeing, acting, failover, coming back.

mod support;

use std::time::Duration;

use marchland_edge::client::{ClientOptions, Login, PlayerClient, ResumeKey};
use marchland_edge::{EdgeOptions, OtherEdge};
use marchland_proto::codes::Code;
use marchland_proto::net::TokioTransport;
use marchland_types::NodeId;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_sees_every_tick_as_it_was_committed() {
    let world = World::start(60).await;
    let edge = world.edge(world.options()).await;
    let mut client = join(edge.local_addr(), "ada").await.unwrap();
    assert_eq!((client.welcome().world.as_str(), client.welcome().next_seq), ("aurora", 1));
    until(&mut client, "32 others in view", |client| client.view.newest().visible == 32).await;
    let (mut bytes, mut last) = (0, client.view.tick());
    for _ in 0..40 {
        client.next().await.unwrap();
        check_shown(&world, &client);
        assert_eq!(client.view.tick(), last + 1, "no frame was skipped");
        last += 1;
        bytes += client.view.newest().size_bytes;
    }
    assert!(bytes / 40 < 230, "{} bytes a frame", bytes / 40);
    let stats = edge.stats();
    assert_eq!((stats.clients, stats.frames_skipped, stats.stale_batches), (1, 0, 0));
    assert!(stats.frames >= 40 && stats.frame_bytes > stats.frames * 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_apply_once_in_order_and_are_answered() {
    let world = World::start(5).await;
    world.lock().admits_late = 3;
    let edge = world.edge(world.options()).await;
    let mut client = join(edge.local_addr(), "ada").await.unwrap();
    let mut replies = Vec::new();
    for i in 0..40u32 {
        client.input(walk(1.0, 0.0), 50).unwrap();
        client.input(action(&i.to_le_bytes()), 0).unwrap();
        client.flush().await.unwrap();
        client.next().await.unwrap();
        replies.extend(client.view.take_replies());
    }
    until(&mut client, "everything is applied", |client| client.unacked() == 0).await;
    until(&mut client, "everything is answered", |client| client.view.last_reply_seq() == 40).await;
    replies.extend(client.view.take_replies());
    let answered: Vec<_> = replies.iter().map(|r| (r.command_seq, u32::from_le_bytes(r.body[..].try_into().unwrap()))).collect();
    assert_eq!(answered, (0..40).map(|i| (u64::from(i) * 2 + 2, i)).collect::<Vec<_>>());
    assert!((client.view.own().x - (1.0 + 40.0 * 0.25)).abs() < 1e-3, "{:?}", client.view.own());
    let character = client.welcome().character_id;
    let applied: Vec<_> = (1..=40).map(|i| (character, i * 2)).collect();
    assert_eq!(world.lock().applied_actions, applied);
    client.ping(77).await.unwrap();
    loop {
        if let marchland_edge::client::Heard::Pong { client_ms, server_ms } = client.next().await.unwrap() {
            assert!(client_ms == 77 && server_ms > 1_600_000_000_000);
            break;
        }
    }
    client.goodbye().await.unwrap();
    let error = loop {
        if let Err(error) = client.next().await {
            break error;
        }
    };
    assert_eq!(error.code(), Some(Code::Goodbye));
    assert_eq!(world.lock().goodbyes, [character]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_come_and_go_and_the_client_does_not_notice() {
    let world = World::start(40).await;
    let edge = world.edge(world.options()).await;
    let mut client = join(edge.local_addr(), "ada").await.unwrap();
    until(&mut client, "others in view", |client| client.view.newest().visible == 32).await;
    let (mut sent, mut longest, mut at) = (0u64, Duration::ZERO, tokio::time::Instant::now());
    for round in 0..80u32 {
        client.input(action(&round.to_le_bytes()), 0).unwrap();
        client.flush().await.unwrap();
        sent += 1;
        match round {
            10 => world.move_owner(3),
            30 => world.move_owner(2),
            // Nobody for a while, and then somebody whom nobody names.
            50 => {
                world.move_owner(0);
                let world = world.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    world.move_owner(1);
                });
            }
            _ => {}
        }
        client.next().await.unwrap();
        longest = longest.max(at.elapsed());
        at = tokio::time::Instant::now();
        check_shown(&world, &client);
    }
    until(&mut client, "everything is applied", |client| client.unacked() == 0).await;
    until(&mut client, "everything is answered", |client| client.view.last_reply_seq() == sent).await;
    check_shown(&world, &client);
    let character = client.welcome().character_id;
    assert_eq!(world.lock().applied_actions, (1..=sent).map(|seq| (character, seq)).collect::<Vec<_>>());
    assert!(longest < Duration::from_millis(900), "{longest:?} without a frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_over_another_edge_and_nothing_is_lost() {
    let world = World::start(10).await;
    let (first, second) = (world.edge(world.options()).await, world.edge(world.options()).await);
    let mut client = join(first.local_addr(), "ada").await.unwrap();
    let mut answered = 0;
    for _ in 0..10 {
        client.input(action(b"x"), 0).unwrap();
        client.flush().await.unwrap();
        client.next().await.unwrap();
        answered += client.view.take_replies().len();
    }
    // Two that nobody has, one of them because it was never sent.
    client.input(action(b"y"), 0).unwrap();
    client.flush().await.unwrap();
    client.input(action(b"z"), 0).unwrap();
    let key = client.resume_key();
    drop(client);
    let mut client = connect(second.local_addr(), &Login::Resume(key.clone())).await.unwrap();
    assert_eq!(client.welcome().attach_number, 2);
    client.flush().await.unwrap();
    until(&mut client, "everything is answered", |client| client.view.last_reply_seq() == 12).await;
    answered += client.view.take_replies().len();
    assert_eq!(answered, 12);
    assert_eq!(world.lock().applied_actions.len(), 12);
    assert_eq!(world.lock().sign_ins, 1, "resuming needs no directory");
    // The same attach again is too late; a wrong secret is no use; a newer attach takes over from a living one.
    let stale = Login::Resume(ResumeKey { attach_number: 1, ..key.clone() });
    assert_eq!(connect(first.local_addr(), &stale).await.err().unwrap().code(), Some(Code::Superseded));
    let wrong = ResumeKey { resume_secret: vec![0; 32].into(), attach_number: 9, ..key };
    assert_eq!(connect(first.local_addr(), &Login::Resume(wrong)).await.err().unwrap().code(), Some(Code::BadResume));
    let mut third = connect(first.local_addr(), &Login::Resume(client.resume_key())).await.unwrap();
    let error = loop {
        if let Err(error) = client.next().await {
            break error;
        }
    };
    assert_eq!(error.code(), Some(Code::Superseded));
    until(&mut third, "others in view", |client| client.view.newest().visible == 10).await;
    check_shown(&world, &third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_stops_says_where_to_go() {
    let world = World::start(5).await;
    let edge = world
        .edge(EdgeOptions { other_edges: vec![OtherEdge { node: NodeId(9), ws: "ws://other".into() }], ..world.options() })
        .await;
    let mut client = join(edge.local_addr(), "ada").await.unwrap();
    until(&mut client, "a frame", |client| client.view.tick() > 0).await;
    edge.shutdown();
    let error = loop {
        if let Err(error) = client.next().await {
            break error;
        }
    };
    let marchland_edge::client::ClientError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!((Code::from_u32(refused.code), refused.other_edge.as_str()), (Some(Code::GoingAway), "ws://other"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(edge.stats().clients, 0);
    assert!(tokio::net::TcpStream::connect(edge.local_addr()).await.is_err(), "nobody listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_players_over_two_workers() {
    let world = World::start(20).await;
    let edge = world.edge(EdgeOptions { workers: 2, ..world.options() }).await;
    let mut players = Vec::new();
    for i in 0..60 {
        let (world, address) = (world.clone(), edge.local_addr());
        players.push(tokio::spawn(async move {
            let mut client = join(address, &format!("p{i}")).await.unwrap();
            for _ in 0..40 {
                client.input(walk(0.1, 0.1), 50).unwrap();
                client.flush().await.unwrap();
                client.next().await.unwrap();
                check_shown(&world, &client);
            }
            until(&mut client, "everything is applied", |client| client.unacked() == 0).await;
            assert_eq!(client.view.newest().visible, 32);
        }));
    }
    for player in players {
        player.await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.lock().detached.len(), 60, "the region was told of every client that left");
    assert_eq!(edge.stats().clients, 0);
}

/// More than tokio lets a task do at a time: a pass over the sockets must not end before the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_many_clients_is_not_skipped() {
    const PLAYERS: usize = 300;
    let world = World::start(10).await;
    let edge = world.edge(world.options()).await;
    let mut players = Vec::new();
    for i in 0..PLAYERS {
        let address = edge.local_addr();
        players.push(tokio::spawn(async move {
            let mut client = join(address, &format!("p{i}")).await.unwrap();
            loop {
                client.next().await.unwrap();
            }
        }));
    }
    while edge.stats().clients < PLAYERS as u64 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let before = edge.stats();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let after = edge.stats();
    let (frames, skipped) = (after.frames - before.frames, after.frames_skipped - before.frames_skipped);
    assert!(frames > 0 && skipped * 50 < frames, "{frames} frames, {skipped} skipped");
    players.iter().for_each(|player| player.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_over_tls() {
    use std::sync::Arc;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let authority = marchland_proto::net::make_authority("test").unwrap();
    let identity = "marchland://test/node/1?roles=edge&worlds=1".parse().unwrap();
    let (certificate, key) = marchland_proto::net::make_node_certificate(&authority, &identity).unwrap();
    let tls = marchland_proto::net::client_tls_acceptor(certificate.as_bytes(), key.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("marchland.cluster").unwrap();
    let options = ClientOptions { tls: Some((Arc::new(config).into(), name)), client_name: "test".into() };

    let world = World::start(40).await;
    let edge = world.edge(EdgeOptions { tls: Some(tls), ..world.options() }).await;
    let address = edge.local_addr().to_string();
    let mut client = PlayerClient::connect(&TokioTransport, &address, &options, &sign_in("ada")).await.unwrap();
    until(&mut client, "others in view", |client| client.view.newest().visible == 32).await;
    client.input(action(b"x"), 0).unwrap();
    client.flush().await.unwrap();
    until(&mut client, "the answer", |client| client.view.last_reply_seq() == 1).await;
    check_shown(&world, &client);
    // Without TLS nobody gets in.
    assert!(join(edge.local_addr(), "bob").await.is_err());
}
