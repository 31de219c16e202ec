//! The realm's service, and directories that ask it: over fakes that fail as told, and over raft and sockets.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use marchland_proto::cluster::{RecordWorldRequest, RegisterNodeRequest, RegisterRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterSecurity, Listener, Role as PeerRole, TokioTransport, Transport, serve_cluster};
use marchland_proto::storage::directory_entry::Body as DirectoryBody;
use marchland_proto::storage::realm_entry::Body;
use marchland_proto::storage::{DirectoryGenesis, GroupPlan, NodeRegistration, RealmGenesis, RealmNode, RealmWorld};
use marchland_raft::testkit::{Book, leader_of};
use marchland_raft::{BoxFuture, Machine, NodeOptions, RaftNode, Role};
use marchland_router::core::check_realm;
use marchland_router::{
    Audited, ClientOptions, Directories, Directory, DirectoryClient, DirectoryError, DirectoryOptions, DirectoryService,
    DirectoryView, Issuer, Peers, Realm, RealmClient, RealmError, RealmService, RealmSlot, RealmView, Registry, keep_realm_told,
};
use marchland_storage::disk::SimDisk;
use marchland_storage::keyed::{KeyedNode, SimKeyedNode};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_types::{CutNumber, GroupId, Incarnation, NodeId, ReplicaId, WorldId};
use support::*;

type TestRealm = RealmService<Arc<FakeGroup>, Store, TestClock>;

fn quick() -> DirectoryOptions {
    DirectoryOptions { order_ms: 60, busy_ms: 20, retry_ms: 1, ..DirectoryOptions::default() }
}

fn code(number: u32) -> Code {
    Code::from_u32(number).unwrap()
}

fn plan(group: GroupId, nodes: impl IntoIterator<Item = u32>) -> GroupPlan {
    GroupPlan { group: group.0, replicas: nodes.into_iter().map(|node| replica(node).0).collect() }
}

fn realm_genesis(nodes: impl IntoIterator<Item = u32>) -> RealmGenesis {
    RealmGenesis { cluster: "test".into(), plan: Some(plan(GroupId::realm(), nodes)) }
}

fn aurora(nodes: impl IntoIterator<Item = u32> + Clone) -> RealmWorld {
    let plan = plan(directory_group(), nodes.clone());
    RealmWorld { world: WORLD.0, name: "aurora".into(), nodes: nodes.into_iter().collect(), plan: Some(plan) }
}

fn registration(node: u32, folder: u8, incarnation: u32) -> NodeRegistration {
    NodeRegistration { node, folder_id: vec![folder; 16].into(), incarnation, ..NodeRegistration::default() }
}

/// A realm of one replica, which leads, with a world.
struct RealmRig {
    machine: Arc<TestMachine>,
    group: Arc<FakeGroup>,
    service: Arc<TestRealm>,
    registry: Registry,
}

impl RealmRig {
    async fn begun() -> Self {
        let registry = Registry::default();
        let store = store_of(&SimDisk::new(1), GroupId::realm());
        let machine = Arc::new(TestMachine::realm(GroupId::realm(), store, registry.clone()).await.unwrap());
        machine.role(Role::Leader(1.into()));
        let group = FakeGroup::of(GroupId::realm(), machine.clone());
        let view = RealmView::new(machine.store().clone());
        let service = Arc::new(RealmService::new(group.clone(), view, TestClock::default(), quick()));
        for body in [Body::Genesis(realm_genesis(1..=3)), Body::World(aurora(1..=3))] {
            assert_eq!(service.order(body).await.unwrap().code, 0);
        }
        Self { machine, group, service, registry }
    }

    async fn check(&self) {
        check_realm(records(self.machine.store()).await).unwrap();
    }
}

#[tokio::test]
async fn a_node_speaks_for_the_worlds_of_its_certificate() {
    let rig = RealmRig::begun().await;
    let record = async |peer, world| {
        let reply = rig.service.record_world(&peer, RecordWorldRequest { world }).await;
        (code(reply.code), reply.leader)
    };
    assert_eq!(record(peer(1, &[PeerRole::Shard]), Some(aurora(1..=3))).await, (Code::Ok, 0));
    assert_eq!(record(peer(1, &[PeerRole::Shard]), None).await.0, Code::Malformed);
    assert_eq!(record(peer(1, &[PeerRole::Edge, PeerRole::Admin]), Some(aurora(1..=3))).await.0, Code::Forbidden);
    let mut other = peer(4, &[PeerRole::Shard]);
    other.worlds = Some([WorldId(2)].into());
    assert_eq!(record(other.clone(), Some(aurora(1..=3))).await.0, Code::Forbidden);
    assert_eq!(record(peer(1, &[PeerRole::Shard]), Some(aurora([1, 2, 4]))).await.0, Code::Refused, "another plan");

    let register = async |peer, node| {
        let reply = rig.service.register_node(&peer, RegisterNodeRequest { node }).await;
        (code(reply.code), reply.incarnation)
    };
    let order = |folder| Some(RealmNode { world: WORLD.0, node: Some(registration(2, folder, 0)), at_least: 0 });
    assert_eq!(register(peer(2, &[PeerRole::Shard]), order(9)).await, (Code::Ok, 2));
    assert_eq!(register(peer(1, &[PeerRole::Shard]), order(9)).await, (Code::Ok, 2), "asked through another leader");
    assert_eq!(register(peer(1, &[PeerRole::Shard]), order(8)).await, (Code::Ok, 3));
    assert_eq!(register(other, order(7)).await.0, Code::Forbidden);
    assert_eq!(register(peer(1, &[PeerRole::Shard]), None).await.0, Code::Malformed);
    assert_eq!(rig.registry.newest(NodeId(2)), Some(Incarnation(3)), "its hosts know who may speak");

    *rig.group.leader.lock().unwrap() = Some(replica(3));
    assert_eq!(record(peer(1, &[PeerRole::Shard]), Some(aurora(1..=3))).await, (Code::NotLeader, replica(3).0));
    rig.check().await;
}

#[tokio::test]
async fn the_realm_is_told_at_a_cut_and_as_it_stands() {
    let rig = RealmRig::begun().await;
    let now = rig.service.inspect(CutNumber(0)).await;
    let taken = rig.service.take_cut(CutNumber(4)).await;
    assert_eq!((taken.code, taken.number), (0, 4));
    let order = RealmNode { world: WORLD.0, node: Some(registration(2, 9, 0)), at_least: 0 };
    assert_eq!(rig.service.order(Body::Node(order)).await.unwrap().code, 0);
    let at = rig.service.inspect(CutNumber(4)).await;
    assert_eq!((at.code, at.index, at.state_hash), (0, taken.index, now.state_hash));
    let later = rig.service.inspect(CutNumber(0)).await;
    assert!(later.index > at.index && later.state_hash != at.state_hash);
    assert_eq!(rig.service.inspect(CutNumber(5)).await.code, 2, "not taken yet");
    assert_eq!(rig.service.inspect(CutNumber(3)).await.code, 3, "passed over");
    let seeded = rig.service.seed(Default::default(), Default::default()).await;
    assert_eq!(code(seeded.code), Code::Refused);
}

/// Asks a realm without a network between; fails as told.
struct Near {
    realm: Arc<TestRealm>,
    away: Mutex<Option<RealmError>>,
    asked: AtomicUsize,
}

impl Issuer for Near {
    fn issue(&self, node: RealmNode) -> BoxFuture<'_, Result<Incarnation, RealmError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if let Some(error) = self.away.lock().unwrap().clone() {
                return Err(error);
            }
            let request = RegisterNodeRequest { node: Some(node) };
            let reply = self.realm.register_node(&peer(1, &[PeerRole::Shard]), request).await;
            match code(reply.code) {
                Code::Ok => Ok(Incarnation(reply.incarnation)),
                code => Err(RealmError::Refused { code, reason: reply.reason }),
            }
        })
    }
}

/// A directory, founded by nodes 1 to 3, that asks `issuer`.
async fn directory(issuer: Arc<Near>) -> (Arc<FakeGroup>, TestService) {
    let machine =
        Arc::new(TestMachine::directory(directory_group(), store(&SimDisk::new(2)), Registry::default()).await.unwrap());
    machine.role(Role::Leader(1.into()));
    let group = FakeGroup::new(machine.clone());
    let view = DirectoryView::new(machine.store().clone());
    let service = DirectoryService::new(WORLD, group.clone(), view, TestClock::default(), quick()).issued_by(Some(issuer));
    let mut genesis: DirectoryGenesis = genesis(1);
    genesis.plans.push(plan(directory_group(), 1..=3));
    assert_eq!(service.order(DirectoryBody::Genesis(genesis)).await.unwrap().code, 0);
    (group, service)
}

#[tokio::test]
async fn a_new_folder_gets_what_the_realm_issues_and_waits_while_it_is_away() {
    let rig = RealmRig::begun().await;
    let issuer = Arc::new(Near { realm: rig.service.clone(), away: Mutex::default(), asked: AtomicUsize::new(0) });
    let (group, service) = directory(issuer.clone()).await;
    let register = async |node, folder, incarnation| {
        let request = RegisterRequest { world: WORLD.0, node: Some(registration(node, folder, incarnation)) };
        let reply = service.register(&peer(node, &[PeerRole::Shard]), request).await;
        (code(reply.code), reply.incarnation, reply.reason)
    };
    let given = async |node, folder, incarnation| {
        let (code, incarnation, _) = register(node, folder, incarnation).await;
        (code, incarnation)
    };
    assert_eq!(given(1, 1, 1).await, (Code::Ok, 1), "a founder has its incarnation");
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 0);

    *issuer.away.lock().unwrap() =
        Some(RealmError::Unknown { within: Duration::from_millis(800), last: "node 1: no answer".into() });
    let proposals = group.proposals.load(Ordering::Relaxed);
    let (waits, _, reason) = register(2, 9, 0).await;
    assert!(waits == Code::Unavailable && reason.contains("the realm can not be reached"), "{waits:?}: {reason}");
    assert_eq!(group.proposals.load(Ordering::Relaxed), proposals, "nothing is recorded");
    assert_eq!(given(1, 1, 1).await, (Code::Ok, 1), "who has an incarnation needs no realm");
    *issuer.away.lock().unwrap() = None;

    // The realm has issued, and nobody heard: the same folder gets the same.
    group.then([Outcome::NotLeader(Some(replica(2)))]);
    assert_eq!(given(2, 9, 0).await.0, Code::NotLeader);
    assert_eq!(given(2, 9, 0).await, (Code::Ok, 2), "above the founder's, which never registered");
    let asked = issuer.asked.load(Ordering::Relaxed);
    assert_eq!(given(2, 9, 0).await, (Code::Ok, 2));
    assert_eq!(issuer.asked.load(Ordering::Relaxed), asked, "what is recorded is not asked for again");
    assert_eq!(given(2, 8, 0).await, (Code::Ok, 3));
    assert_eq!(given(2, 9, 0).await, (Code::Superseded, 2));

    // A forged `issued` of the caller's is not looked at.
    let forged = NodeRegistration { issued: 77, ..registration(3, 5, 0) };
    let request = RegisterRequest { world: WORLD.0, node: Some(forged) };
    assert_eq!(service.register(&peer(3, &[PeerRole::Shard]), request).await.incarnation, 2);

    // The realm knows of a later folder than this directory does.
    let order = RealmNode { world: WORLD.0, node: Some(registration(3, 6, 0)), at_least: 0 };
    assert_eq!(rig.service.order(Body::Node(order)).await.unwrap().node.unwrap().incarnation, 3);
    assert_eq!(given(3, 4, 0).await, (Code::Ok, 4));
    rig.check().await;
}

/// One node over raft and sockets, with the realm and the directory of a world.
struct Lone {
    raft: RaftNode,
    realm: Realm<Store, TestClock>,
    realm_store: Store,
    directory: Directory<Store, TestClock>,
    registry: Registry,
    client: Arc<RealmClient<TokioTransport>>,
    address: String,
}

fn peers(node: u32) -> Peers<TokioTransport> {
    Peers::new(TokioTransport, ClusterSecurity::simulated(peer(node, &[PeerRole::Shard])))
}

async fn lone() -> Lone {
    let book = Arc::new(Book::default());
    let disk = SimDisk::new(3);
    let security = ClusterSecurity::simulated(peer(1, &[PeerRole::Shard]));
    let log_options = LogOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..LogOptions::default() };
    let (log, writer) = SharedLog::open(disk.clone(), Path::new("/log"), log_options).expect("the log opens");
    tokio::spawn(async move { writer.run_task(|| Duration::from_micros(200)).await });
    let options = NodeOptions::new(NodeId(1), Incarnation(1), book.clone());
    let raft = RaftNode::start(options, &TokioTransport, &security, log).expect("raft starts");
    let listener = TokioTransport.listen("127.0.0.1:0").await.unwrap();
    let address = Listener::local_addr(&listener).unwrap().to_string();
    book.enter(NodeId(1), address.clone());
    let keyed = SimKeyedNode::open(disk, Path::new("/keyed"), None).expect("the store opens");
    let (registry, clock) = (Registry::default(), TestClock::default());
    let realm_store = keyed.namespace(GroupId::realm());
    let realm = Realm::open(&raft, realm_store.clone(), (clock.clone(), Registry::default()), &[], quick()).await.unwrap();
    let client = Arc::new(RealmClient::new(peers(1), vec![(NodeId(1), address.clone())], 0, ClientOptions::default()));
    let store = keyed.namespace(directory_group());
    let issuer: Arc<dyn Issuer> = client.clone();
    let directory = Directory::open(&raft, WORLD, store, (clock, registry.clone()), Some(issuer), &[], quick()).await.unwrap();
    let (slot, directories) = (RealmSlot::default(), Directories::default());
    slot.set(realm.service());
    directories.insert(directory.service());
    let routes = tonic::service::Routes::new(raft.service().into_server())
        .add_service(directories.into_server())
        .add_service(slot.into_server());
    tokio::spawn(async move { serve_cluster(listener, security, routes, std::future::pending()).await });
    Lone { raft, realm, realm_store, directory, registry, client, address }
}

#[tokio::test]
async fn a_directory_is_recorded_asks_and_tells_what_it_knew_before() {
    let node = lone().await;
    let within = Duration::from_secs(10);
    let voters = [replica(1)].into();
    node.realm.group().initialize(&voters).await.unwrap();
    leader_of(&[node.realm.group().clone()], within).await.expect("the realm is led");
    let early = node.client.record_world(aurora([1]), Duration::from_millis(200)).await;
    assert!(matches!(early, Err(RealmError::Unknown { .. })), "the realm has not begun: {early:?}");
    let service = node.realm.service();
    assert_eq!(service.order(Body::Genesis(realm_genesis([1]))).await.unwrap().code, 0);
    assert_eq!(service.view().genesis().await.unwrap(), Some(realm_genesis([1])));

    // A deployment from before there was a realm: the world is there, and its directory has issued by itself.
    node.directory.group().initialize(&voters).await.unwrap();
    leader_of(&[node.directory.group().clone()], within).await.expect("the directory is led");
    let mut genesis = genesis(1);
    genesis.plans.push(plan(directory_group(), [1]));
    for body in [
        DirectoryBody::Genesis(genesis),
        DirectoryBody::Node(registration(1, 1, 1)),
        DirectoryBody::Node(registration(4, 1, 0)),
        DirectoryBody::Node(registration(4, 2, 0)),
    ] {
        assert_eq!(node.directory.service().order(body).await.unwrap().code, 0);
    }
    let telling = tokio::spawn(keep_realm_told(node.directory.service(), node.client.clone(), node.registry.clone()));
    let known = async |count: usize| {
        for _ in 0..1000 {
            let nodes = service.view().nodes().await.unwrap();
            if nodes.len() == count {
                return nodes.iter().map(|node| (node.node, node.incarnation)).collect::<Vec<_>>();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the realm was not told");
    };
    assert_eq!(known(2).await, [(1, 1), (4, 2)]);
    assert_eq!(service.view().world(WORLD).await.unwrap(), Some(aurora([1])));
    // What comes later is told as well.
    assert_eq!(node.directory.service().order(DirectoryBody::Node(registration(5, 1, 1))).await.unwrap().code, 0);
    assert_eq!(known(3).await, [(1, 1), (4, 2), (5, 1)]);

    // A new folder asks its directory, which asks the realm.
    let members = vec![(NodeId(1), node.address.clone())];
    let of = |n| DirectoryClient::new(WORLD, peers(n), members.clone(), 0, ClientOptions::default());
    assert_eq!(of(4).register(registration(4, 9, 0), within).await, Ok(Incarnation(3)));
    let issued = service.view().nodes().await.unwrap();
    assert_eq!(issued.iter().find(|known| known.node == 4).map(|known| known.incarnation), Some(3));
    let old = of(4).register(registration(4, 2, 2), within).await.unwrap_err();
    assert!(matches!(old, DirectoryError::Refused { code: Code::Superseded, .. }), "{old}");
    let other = node.client.record_world(aurora([1, 2, 3]), within).await;
    assert!(matches!(other, Err(RealmError::Refused { code: Code::Refused, .. })), "{other:?}");
    check_realm(records(&node.realm_store).await).unwrap();
    telling.abort();
    node.raft.shutdown().await;
    let gone = node.client.record_world(aurora([1]), Duration::from_millis(200)).await;
    assert!(matches!(gone, Err(RealmError::Unknown { .. })), "{gone:?}");
    assert_eq!(node.raft.replica(), ReplicaId::new(NodeId(1), Incarnation(1)));
}
