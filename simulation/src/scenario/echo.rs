//! A test of the instrument: two nodes that call each other by real tonic, and two clients on real tungstenite, while a node is
//! killed, unplugged and cut off. No invariant but that everyone is served at the end; what matters is that the same seed gives the
//! same trace, down to the last event of every library.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use marchland_proto::cluster::admin_client::AdminClient;
use marchland_proto::cluster::admin_server::{Admin, AdminServer};
use marchland_proto::cluster::{
    ChangeMapReply, ChangeMapRequest, InspectReply, InspectRequest, MoveOwnerReply, MoveOwnerRequest, SeedCharactersReply,
    SeedCharactersRequest, SkipEntryReply, SkipEntryRequest, StatusReply, StatusRequest, TakeCutReply, TakeCutRequest,
};
use marchland_proto::net::{
    ClusterClient, ClusterSecurity, Listener, PeerIdentity, Role, Transport, cluster_channel, peer_of, serve_cluster,
};
use marchland_types::NodeId;
use marchland_types::seam::{Clock, Entropy};
use rand::RngExt;
use tokio_tungstenite::tungstenite::Message;
use tonic::{Request, Response, Status};

use super::{Outcome, Scenario, nothing};
use crate::director::Director;
use crate::fact::{ClientId, Fact, tell};
use crate::fault::{ClockJump, Fault, Isolate, Kill, PowerLoss, SlowNetwork};
use crate::net::SimTransport;
use crate::oracle::Violation;
use crate::plan::{Plan, Planned, Target, When};
use crate::seams::SimClock;
use crate::seed::Seed;
use crate::trace_line;
use crate::world::{Boot, NetworkOptions, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "echo",
    purpose: "instrument: tonic and tungstenite under faults, without the cluster",
    draw,
    run,
    expects: nothing,
};

const LOAD_MS: u64 = 6_000;
const QUIET_MS: u64 = 4_000;
const LATENCY_MAX_MS: u64 = 20;

fn run(seed: Seed, plan: Plan, outcome: &mut Outcome) -> Result<(), Violation> {
    let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(LATENCY_MAX_MS) };
    let mut world = World::new(seed, network);
    for node in 1..=2_u32 {
        world.add(&format!("n{node}"), move |boot| serve(node, boot));
    }
    let served: Vec<Rc<Cell<u64>>> = (0..2).map(|_| Rc::default()).collect();
    for (number, served) in served.iter().enumerate() {
        let served = served.clone();
        world.add(&format!("c{number}"), move |boot| ask(boot, served.clone()));
    }
    let mut director = Director::new(&world, plan);
    let result = drive(&mut world, &mut director, &served);
    outcome.simulated_ms = world.elapsed().as_millis() as u64;
    outcome.fired = director.fired().clone();
    outcome.sometimes.insert("answers".to_owned(), served.iter().map(|s| s.get()).sum());
    // Taking it all down in order is work, and nothing in it is under test.
    std::mem::forget(world);
    result
}

fn drive(world: &mut World, director: &mut Director, served: &[Rc<Cell<u64>>]) -> Result<(), Violation> {
    director.run(world, LOAD_MS)?;
    let quiet_ms = director.calm(world)?;
    let before: Vec<u64> = served.iter().map(|s| s.get()).collect();
    director.run(world, quiet_ms + QUIET_MS)?;
    for ((number, served), before) in (0..).zip(served).zip(before) {
        tell(&Fact::Served { client: ClientId(number), times: served.get() - before });
    }
    Ok(())
}

fn draw(seed: Seed, _faults: Option<usize>) -> Plan {
    let mut stream = seed.stream("plan");
    let slow = SlowNetwork { latency_max_ms: 80 };
    let faults = [
        Fault::PowerLoss(PowerLoss),
        Fault::Kill(Kill),
        Fault::Isolate(Isolate),
        Fault::ClockJump(ClockJump { by_ms: -60_000 }),
        Fault::SlowNetwork(slow),
    ];
    let planned = faults.into_iter().map(|fault| Planned {
        when: When::AtMs(stream.random_range(500..LOAD_MS - 1000)),
        target: Target::Machine(if stream.random() { "n1" } else { "n2" }.to_owned()),
        fault,
        lasts_ms: stream.random_range(100..1500),
    });
    Plan(planned.collect())
}

fn security(node: u32) -> ClusterSecurity {
    ClusterSecurity::simulated(PeerIdentity {
        cluster: "sim".to_owned(),
        node: NodeId(node),
        roles: [Role::Shard, Role::Edge, Role::Admin].into(),
        worlds: None,
    })
}

struct Echo {
    node: u32,
    clock: SimClock,
}

#[tonic::async_trait]
impl Admin for Echo {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let peer = peer_of(&request)?.node;
        trace_line!("asked by node {peer}");
        let (version, uptime_ms) = (self.clock.wall_ms().to_string(), self.clock.monotonic().as_millis() as u64);
        Ok(Response::new(StatusReply { node: self.node, version, uptime_ms, ready: true, ..StatusReply::default() }))
    }

    async fn take_cut(&self, _request: Request<TakeCutRequest>) -> Result<Response<TakeCutReply>, Status> {
        Err(Status::unimplemented("echo"))
    }

    async fn inspect(&self, _request: Request<InspectRequest>) -> Result<Response<InspectReply>, Status> {
        Err(Status::unimplemented("echo"))
    }

    async fn move_owner(&self, _request: Request<MoveOwnerRequest>) -> Result<Response<MoveOwnerReply>, Status> {
        Err(Status::unimplemented("echo"))
    }

    async fn seed_characters(&self, _request: Request<SeedCharactersRequest>) -> Result<Response<SeedCharactersReply>, Status> {
        Err(Status::unimplemented("echo"))
    }

    async fn change_map(&self, _request: Request<ChangeMapRequest>) -> Result<Response<ChangeMapReply>, Status> {
        Err(Status::unimplemented("echo"))
    }

    async fn skip_entry(&self, _request: Request<SkipEntryRequest>) -> Result<Response<SkipEntryReply>, Status> {
        Err(Status::unimplemented("echo"))
    }
}

async fn serve(node: u32, boot: Boot) -> anyhow::Result<()> {
    let cluster = boot.transport.listen("0.0.0.0:7100").await?;
    let echo = Echo { node, clock: boot.hardware.clock.clone() };
    let routes = tonic::service::Routes::new(AdminServer::new(echo));
    tokio::spawn(serve_cluster(cluster, security(node), routes, std::future::pending()));
    let sockets = boot.transport.listen("0.0.0.0:7300").await?;
    loop {
        let (stream, from) = sockets.accept().await?;
        trace_line!("client from {from}");
        tokio::spawn(answer(stream, security(node), boot.transport.clone(), 3 - node));
    }
}

/// Sends back whatever comes, with what the other node says of itself.
async fn answer(stream: crate::net::SimStream, security: ClusterSecurity, transport: SimTransport, other: u32) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    let channel = cluster_channel(&transport, &security, &format!("n{other}:7100"));
    let mut client = AdminClient::over(channel);
    loop {
        let message = socket.next().await?.ok()?;
        let status = tokio::time::timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
        let said = match status {
            Ok(Ok(reply)) => reply.into_inner().version,
            Ok(Err(status)) => format!("{:?}", status.code()),
            Err(_) => "nothing".to_owned(),
        };
        let Message::Text(text) = message else { continue };
        socket.send(Message::Text(format!("{text}: {said}").into())).await.ok()?;
    }
}

async fn ask(boot: Boot, served: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let mut question = 0_u64;
    loop {
        let node = boot.entropy.next_u64() % 2 + 1;
        if let Err(error) = talk(&boot, node, &mut question, &served).await {
            trace_line!("n{node}: {error}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn talk(boot: &Boot, node: u64, question: &mut u64, served: &Cell<u64>) -> anyhow::Result<()> {
    let stream = boot.transport.connect(&format!("n{node}:7300")).await?;
    let url = format!("ws://n{node}/");
    let handshake = tokio_tungstenite::client_async(url, stream);
    let (mut socket, _) = tokio::time::timeout(Duration::from_secs(1), handshake).await??;
    for _ in 0..20 {
        *question += 1;
        socket.send(Message::Text(format!("question {question}").into())).await?;
        match tokio::time::timeout(Duration::from_secs(2), socket.next()).await? {
            Some(Ok(Message::Text(text))) => {
                trace_line!("{text}");
                served.set(served.get() + 1);
            }
            other => anyhow::bail!("no answer: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Ok(())
}
