//! A directory over a simulated disk, and a raft group that commits what it is given, or not, as told.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::SignInRequest;
use marchland_proto::net::{PeerIdentity, Role as PeerRole};
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{
    ChannelAck, ChannelMessage, Cut, DirectoryGenesis, GroupPlan, LocationUpdate, Neighbour, NodeRegistration, SignInOrder,
    channel_message,
};
use marchland_raft::{Committed, Entry, Machine, Payload, ProposeError, Role};
use marchland_router::core::{Name, SignInToken, TokenSigner, encode_entry};
use marchland_router::{
    DirectoryOptions, DirectoryService, DirectoryView, KeyedGroup, KeyedMachine, Registry, VaultService, Vaults,
};
use marchland_storage::disk::SimDisk;
use marchland_storage::keyed::{KeyedNode, KeyedStore, SimKeyed, SimKeyedNode};
use marchland_types::seam::Clock;
use marchland_types::{GroupId, LogIndex, NodeId, Position, RegionId, ReplicaId, Term, WorldId};

pub const WORLD: WorldId = WorldId(1);

pub type Store = SimKeyed<SimDisk>;
pub type TestMachine = KeyedMachine<Store>;
pub type TestService = DirectoryService<Arc<FakeGroup>, Store, TestClock>;

pub fn directory_group() -> GroupId {
    GroupId::directory(WORLD)
}

pub fn region(n: u32) -> GroupId {
    GroupId::region(WORLD, RegionId(n))
}

pub fn replica(node: u32) -> ReplicaId {
    ReplicaId::new(NodeId(node), 1.into())
}

pub fn store(disk: &SimDisk) -> Store {
    store_of(disk, directory_group())
}

pub fn store_of(disk: &SimDisk, group: GroupId) -> Store {
    SimKeyedNode::open(disk.clone(), Path::new("/keyed"), None).expect("the store opens").namespace(group)
}

pub fn vault(k: u32) -> GroupId {
    GroupId::vault(WORLD, k)
}

pub async fn records(store: &Store) -> BTreeMap<Bytes, Bytes> {
    store.range(b"", b"", usize::MAX).await.expect("range").into_iter().collect()
}

pub fn signer() -> TokenSigner {
    TokenSigner::from_seed(&[9; 32])
}

pub fn genesis(regions: u32) -> DirectoryGenesis {
    let square = |n: u32| Neighbour {
        region: n,
        group: region(n).0,
        min_x: n as f32 * 100.0,
        min_z: 0.0,
        max_x: n as f32 * 100.0 + 100.0,
        max_z: 100.0,
    };
    let replicas: Vec<u64> = (1..=3).map(|n| replica(n).0).collect();
    DirectoryGenesis {
        world: WORLD.0,
        name: "aurora".into(),
        map_epoch: 1,
        map: (1..=regions).map(square).collect(),
        plans: (1..=regions)
            .map(region)
            .chain([vault(1)])
            .map(|group| GroupPlan { group: group.0, replicas: replicas.clone() })
            .collect(),
        token_key: signer().public_key().to_vec().into(),
        vaults: 1,
    }
}

pub fn sign_in_order(account: &str, name: &str, request_id: u64) -> Body {
    let name = Name::parse(name).expect("a name");
    Body::SignIn(SignInOrder {
        account: account.into(),
        character_name: name.shown().into(),
        folded_name: name.folded().into(),
        secret_hash: vec![request_id as u8; 32].into(),
        request_id,
    })
}

pub fn location(from: u32, seq: u64, character: u64, move_number: u64) -> Body {
    let update = LocationUpdate { character, move_number, group: region(from).0, present: true };
    let body = Some(channel_message::Body::Location(update));
    Body::Message(ChannelMessage { from_group: region(from).0, seq, cut: 0, map_epoch: 1, body })
}

pub fn sign_in_request(account: &str, name: &str, request_id: u64) -> SignInRequest {
    let token = SignInToken { world: WORLD, account: account.into(), expires_ms: 1_000_000 };
    SignInRequest {
        world: WORLD.0,
        token: signer().mint(&token).expect("a token"),
        character_name: name.into(),
        secret_hash: vec![request_id as u8; 32].into(),
        request_id,
    }
}

pub fn peer(node: u32, roles: &[PeerRole]) -> PeerIdentity {
    PeerIdentity {
        cluster: "test".into(),
        node: NodeId(node),
        roles: roles.iter().copied().collect(),
        worlds: Some([WORLD].into()),
    }
}

/// A log of everything that a directory may be told, from a list of small numbers.
pub fn script(numbers: &[(u8, u8, u8)]) -> Vec<Payload> {
    let mut log = vec![
        Payload::Membership(Bytes::from_static(b"founders")),
        Payload::Blank,
        Payload::Command(encode_entry(1, Body::Genesis(genesis(3)))),
    ];
    for (at, &(kind, a, b)) in numbers.iter().enumerate() {
        let body = match kind % 8 {
            0..=2 => sign_in_order(&format!("account{}", a % 3), &format!("name{}", b % 6), u64::from(a ^ b)),
            3 => location(u32::from(a % 3) + 1, u64::from(b % 8), u64::from(a % 5), u64::from(b)),
            4 => Body::Ack(ChannelAck {
                from_group: region(u32::from(a % 3) + 1).0,
                seq: u64::from(b % 16),
                cut: u64::from(b / 64),
            }),
            5 => Body::Cut(Cut { number: u64::from(a % 2) * u64::from(b), now_ms: 0 }),
            6 => Body::Node(NodeRegistration {
                node: u32::from(a % 4),
                folder_id: vec![b % 4; 16].into(),
                ..NodeRegistration::default()
            }),
            _ => {
                log.push(if a % 2 == 0 { Payload::Blank } else { Payload::Membership(vec![b].into()) });
                continue;
            }
        };
        log.push(Payload::Command(encode_entry(at as u64 * 50, body)));
    }
    log
}

pub fn entries(log: &[Payload], from: usize) -> Vec<Entry> {
    let entry = |(index, payload): (usize, &Payload)| Entry {
        position: Position { term: Term(1 + index as u64 / 10), index: LogIndex(index as u64) },
        payload: payload.clone(),
    };
    log.iter().enumerate().skip(from).map(entry).collect()
}

/// A clock that tests set.
#[derive(Clone, Default)]
pub struct TestClock(pub Arc<AtomicU64>);

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.wall_ms())
    }

    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// It is committed, applied, and answered.
    Commit,
    /// It is committed and applied; whoever proposed never hears of it.
    CommitUnheard,
    /// It is lost; whoever proposed can not know.
    Lose,
    /// It is refused: another one leads.
    NotLeader(Option<ReplicaId>),
    /// It is refused: no room.
    Refuse,
}

/// A group of one replica. Commits, unless told otherwise for the next proposals.
pub struct FakeGroup {
    id: GroupId,
    machine: Arc<TestMachine>,
    next: tokio::sync::Mutex<u64>,
    pub outcomes: Mutex<VecDeque<Outcome>>,
    pub leader: Mutex<Option<ReplicaId>>,
    pub proposals: AtomicU64,
}

impl FakeGroup {
    pub fn new(machine: Arc<TestMachine>) -> Arc<Self> {
        Self::of(directory_group(), machine)
    }

    pub fn of(id: GroupId, machine: Arc<TestMachine>) -> Arc<Self> {
        let leader = Mutex::new(Some(replica(1)));
        let (outcomes, proposals) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { id, machine, next: tokio::sync::Mutex::new(0), outcomes, leader, proposals })
    }

    pub fn then(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.outcomes.lock().unwrap().extend(outcomes);
    }
}

impl KeyedGroup for FakeGroup {
    async fn propose(&self, entry: Bytes) -> Result<Committed, ProposeError> {
        self.proposals.fetch_add(1, Ordering::Relaxed);
        let group = self.id;
        let outcome = self.outcomes.lock().unwrap().pop_front().unwrap_or(Outcome::Commit);
        match outcome {
            Outcome::NotLeader(leader) => return Err(ProposeError::NotLeader { group, leader }),
            Outcome::Refuse => return Err(ProposeError::Refused { group, reason: "told to".into() }),
            Outcome::Lose => return Err(ProposeError::Unknown { group, reason: "lost".into() }),
            Outcome::Commit | Outcome::CommitUnheard => {}
        }
        let mut next = self.next.lock().await;
        let position = Position { term: Term(1), index: LogIndex(*next) };
        *next += 1;
        let answers = self.machine.apply(vec![Entry { position, payload: Payload::Command(entry) }]).await;
        let answer = answers.expect("applied").remove(0);
        match outcome {
            Outcome::CommitUnheard => Err(ProposeError::Unknown { group, reason: "unheard".into() }),
            _ => Ok(Committed { position, answer }),
        }
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        if self.leads() { Ok(()) } else { Err(ProposeError::NotLeader { group: self.id, leader: self.leader() }) }
    }

    fn leads(&self) -> bool {
        *self.leader.lock().unwrap() == Some(replica(1))
    }

    fn leader(&self) -> Option<ReplicaId> {
        *self.leader.lock().unwrap()
    }
}

/// A directory that has begun, with one replica, which leads.
pub struct Rig {
    pub machine: Arc<TestMachine>,
    pub group: Arc<FakeGroup>,
    pub service: Arc<TestService>,
    pub clock: TestClock,
}

impl Rig {
    pub async fn begun(options: DirectoryOptions) -> Self {
        let machine =
            Arc::new(TestMachine::directory(directory_group(), store(&SimDisk::new(1)), Registry::default()).await.unwrap());
        machine.role(Role::Leader(Term(1)));
        let group = FakeGroup::new(machine.clone());
        let clock = TestClock::default();
        let service = Arc::new(DirectoryService::new(
            WORLD,
            group.clone(),
            DirectoryView::new(machine.store().clone()),
            clock.clone(),
            options,
        ));
        assert_eq!(service.order(Body::Genesis(genesis(2))).await.unwrap().code, 0);
        Self { machine, group, service, clock }
    }
}

/// A vault with one replica, which leads.
pub struct VaultRig {
    pub disk: SimDisk,
    pub machine: Arc<TestMachine>,
    pub group: Arc<FakeGroup>,
    pub service: Arc<VaultService<Arc<FakeGroup>, Store, TestClock>>,
    pub vaults: Vaults<Arc<FakeGroup>, Store, TestClock>,
}

impl VaultRig {
    pub async fn new(options: DirectoryOptions) -> Self {
        let disk = SimDisk::new(1);
        let machine = Arc::new(TestMachine::vault(vault(1), store_of(&disk, vault(1))).await.unwrap());
        machine.role(Role::Leader(Term(1)));
        let group = FakeGroup::of(vault(1), machine.clone());
        let service = Arc::new(VaultService::new(vault(1), group.clone(), machine.records(), TestClock::default(), options));
        let vaults = Vaults::default();
        vaults.insert(service.clone());
        Self { disk, machine, group, service, vaults }
    }
}
