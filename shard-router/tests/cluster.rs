//! Three replicas with real raft groups over sockets, simulated disks that lose power, and a client that goes on asking.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_proto::net::{ClusterSecurity, Listener, Role as PeerRole, TokioTransport, Transport, serve_cluster};
use marchland_proto::storage::NodeRegistration;
use marchland_proto::storage::directory_entry::Body;
use marchland_raft::testkit::Book;
use marchland_raft::{Group, NodeOptions, RaftNode, Role};
use marchland_router::core::check;
use marchland_router::{
    ClientOptions, Directories, Directory, DirectoryClient, DirectoryError, DirectoryOptions, Peers, Registry,
};
use marchland_storage::disk::SimDisk;
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_types::{CharacterId, Incarnation, NodeId};
use support::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type TestDirectory = Directory<Store, TestClock>;

struct Node {
    raft: RaftNode,
    directory: TestDirectory,
    store: Store,
    writer: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start(node: u32, disk: &SimDisk, book: &Arc<Book>) -> Node {
    let identity = peer(node, &[PeerRole::Shard]);
    let security = ClusterSecurity::simulated(identity);
    let options = LogOptions { segment_bytes: 1 << 20, reserve_bytes: 0, ..LogOptions::default() };
    let (log, writer) = SharedLog::open(disk.clone(), Path::new("/log"), options).expect("the log opens");
    let writer = tokio::spawn(async move {
        writer.run_task(|| Duration::from_micros(200)).await;
    });
    let options = NodeOptions::new(NodeId(node), Incarnation(1), book.clone());
    let raft = RaftNode::start(options, &TokioTransport, &security, log).expect("raft starts");
    let store = store(disk);
    let peers: Vec<_> = (1..=3).filter(|&n| n != node).map(replica).collect();
    let directory = Directory::open(
        &raft,
        WORLD,
        store.clone(),
        (TestClock::default(), Registry::default()),
        None,
        &peers,
        DirectoryOptions::default(),
    )
    .await
    .unwrap();
    let directories = Directories::default();
    directories.insert(directory.service());
    let listener = TokioTransport.listen("127.0.0.1:0").await.unwrap();
    book.enter(NodeId(node), Listener::local_addr(&listener).unwrap().to_string());
    let routes = tonic::service::Routes::new(raft.service().into_server()).add_service(directories.into_server());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let _ = serve_cluster(listener, security, routes, async { drop(stopped.await) }).await;
    });
    Node { raft, directory, store, writer, stop, server }
}

impl Node {
    /// Takes the power away; returns what the disk has then.
    async fn power_off(self, disk: &SimDisk, seed: u64) -> SimDisk {
        let image = disk.copy();
        image.crash(seed);
        self.writer.abort();
        self.server.abort();
        drop(self.stop);
        self.raft.shutdown().await;
        image
    }
}

fn members(book: &Book) -> Vec<(NodeId, String)> {
    use marchland_raft::AddressBook;
    (1..=3).filter_map(|n| Some((NodeId(n), book.address(NodeId(n))?))).collect()
}

fn leader(nodes: &BTreeMap<u32, Node>) -> Option<u32> {
    let leads = |group: &Group| matches!(group.status().role, Role::Leader(_));
    nodes.iter().find(|(_, node)| leads(node.directory.group())).map(|(n, _)| *n)
}

async fn led(nodes: &BTreeMap<u32, Node>) -> u32 {
    for _ in 0..1000 {
        if let Some(leader) = leader(nodes) {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody leads");
}

/// Waits until all replicas hold the same records, and checks them.
async fn agree(nodes: &BTreeMap<u32, Node>) -> BTreeMap<Bytes, Bytes> {
    for _ in 0..500 {
        let mut all = Vec::new();
        for node in nodes.values() {
            all.push(records(&node.store).await);
        }
        if all.windows(2).all(|pair| pair[0] == pair[1]) {
            check(all[0].clone()).unwrap();
            return all.remove(0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("replicas do not agree");
}

#[tokio::test]
async fn sign_ins_survive_the_power_losses_of_their_leaders() {
    let book = Arc::new(Book::default());
    let mut disks: BTreeMap<u32, SimDisk> = (1..=3).map(|n| (n, SimDisk::new(u64::from(n)))).collect();
    let mut nodes = BTreeMap::new();
    for n in 1..=3 {
        nodes.insert(n, start(n, &disks[&n], &book).await);
    }
    nodes[&1].directory.group().initialize(&(1..=3).map(replica).collect()).await.unwrap();
    let first = led(&nodes).await;
    let answer = nodes[&first].directory.service().order(Body::Genesis(genesis(2))).await.unwrap();
    assert_eq!(answer.code, 0, "{}", answer.reason);

    let edge = ClusterSecurity::simulated(peer(9, &[PeerRole::Edge]));
    let peers = Peers::new(TokioTransport, edge);
    // It begins with a member that does not lead, and is told who does.
    let client = DirectoryClient::new(WORLD, peers, members(&book), first as usize, ClientOptions::default());
    let within = Duration::from_secs(10);
    let mut character = 0;
    for request in 1..=30u64 {
        if request % 10 == 0 {
            let n = led(&nodes).await;
            let node = nodes.remove(&n).unwrap();
            let image = node.power_off(&disks[&n], request).await;
            disks.insert(n, image);
        }
        if request % 10 == 5 && request > 10 {
            let n = (1..=3).find(|n| !nodes.contains_key(n)).unwrap();
            nodes.insert(n, start(n, &disks[&n], &book).await);
            client.set_members(members(&book));
        }
        let answer = client.sign_in(sign_in_request("anna", "Ann", request), within).await.unwrap();
        assert_eq!(answer.epoch, request, "each sign-in takes effect once");
        character = answer.character;
        if request % 7 == 0 {
            let again = client.sign_in(sign_in_request("anna", "Ann", request), within).await.unwrap();
            assert_eq!(again, answer, "a retry has the same answer");
            let found = client.locate(CharacterId(character), within).await.unwrap();
            assert_eq!((found.group, found.region), (region(1).0, 1));
        }
    }
    let n = (1..=3).find(|n| !nodes.contains_key(n)).unwrap();
    nodes.insert(n, start(n, &disks[&n], &book).await);
    client.set_members(members(&book));
    let refused = client.sign_in(sign_in_request("berta", "ANN", 1), within).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::Refused { code: Code::NameTaken, .. }), "{refused}");
    let map = client.map(within).await.unwrap();
    assert_eq!((map.map.len(), map.plans.len()), (2, 3));
    agree(&nodes).await;
    let record = nodes[&n].directory.view().character(CharacterId(character)).await.unwrap().unwrap();
    assert_eq!((record.epoch, record.name.as_str()), (30, "Ann"));

    // A node registers through its own connection.
    let shard = ClusterSecurity::simulated(peer(2, &[PeerRole::Shard]));
    let client = DirectoryClient::new(WORLD, Peers::new(TokioTransport, shard), members(&book), 0, ClientOptions::default());
    let node = |node, folder: u8| NodeRegistration { node, folder_id: vec![folder; 16].into(), ..NodeRegistration::default() };
    assert_eq!(client.register(node(2, 1), within).await, Ok(Incarnation(1)));
    assert_eq!(client.register(node(2, 2), within).await, Ok(Incarnation(2)));
    let refused = client.register(node(2, 1), within).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::Refused { code: Code::Superseded, .. }), "{refused}");
    let refused = client.register(node(3, 1), within).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::Refused { code: Code::Forbidden, .. }), "{refused}");

    // Nobody there: the outcome is unknown, in time.
    for (n, node) in std::mem::take(&mut nodes) {
        node.power_off(&disks[&n], 0).await;
    }
    let unknown = client.locate(CharacterId(character), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(unknown, DirectoryError::Unknown { .. }), "{unknown}");
}
