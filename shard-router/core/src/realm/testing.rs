//! A realm in memory, as tests see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use marchland_proto::storage::realm_entry::Body;
use marchland_proto::storage::{GroupPlan, NodeRegistration, RealmAnswer, RealmGenesis, RealmNode, RealmWorld};
use marchland_types::{GroupId, LogIndex, NodeId, ReplicaId, WorldId};
use prost::Message as _;

use super::{apply_realm, encode_realm_entry};
use crate::keys::Key;
use crate::testing::apply_to;

#[derive(Clone, Default)]
pub(super) struct Realm {
    pub(super) records: BTreeMap<Bytes, Bytes>,
    index: u64,
}

/// The founding replicas of these nodes.
pub(super) fn plan(group: GroupId, nodes: impl IntoIterator<Item = u32>) -> GroupPlan {
    GroupPlan { group: group.0, replicas: nodes.into_iter().map(|n| ReplicaId::new(NodeId(n), 1.into()).0).collect() }
}

pub(super) fn genesis() -> RealmGenesis {
    RealmGenesis { cluster: "dev".into(), plan: Some(plan(GroupId::realm(), 1..=3)) }
}

/// World `n` lives on three nodes of its own.
pub(super) fn world(n: u32) -> RealmWorld {
    let nodes = n * 3 - 2..=n * 3;
    let plan = plan(GroupId::directory(WorldId(n)), nodes.clone());
    RealmWorld { world: n, name: format!("world{n}"), nodes: nodes.collect(), plan: Some(plan) }
}

impl Realm {
    pub(super) fn begun(worlds: u32) -> Self {
        let mut realm = Self::default();
        assert_eq!(realm.apply(Body::Genesis(genesis())), RealmAnswer::default());
        for n in 1..=worlds {
            assert_eq!(realm.apply(Body::World(world(n))), RealmAnswer::default());
        }
        realm
    }

    pub(super) fn apply(&mut self, body: Body) -> RealmAnswer {
        let entry = encode_realm_entry(self.index * 50, body);
        let (answer, rounds) = apply_to(&mut self.records, |view| apply_realm(view, LogIndex(self.index), &entry)).unwrap();
        assert!(rounds <= 5, "{rounds} rounds of reads");
        self.index += 1;
        answer
    }

    /// A folder of world 1 asks, or (with a claim) tells.
    pub(super) fn node(&mut self, node: u32, folder: u8, claim: u32, at_least: u32) -> RealmAnswer {
        let order = NodeRegistration {
            node,
            folder_id: vec![folder; 16].into(),
            grpc: format!("127.0.0.1:{folder}"),
            incarnation: claim,
            ..NodeRegistration::default()
        };
        self.apply(Body::Node(RealmNode { world: 1, node: Some(order), at_least }))
    }

    pub(super) fn state_hash(&self) -> u64 {
        let counters = &self.records[&Key::Counters.encode()];
        marchland_proto::storage::DirectoryCounters::decode(counters.clone()).unwrap().state_hash
    }

    pub(super) fn check(&self) {
        crate::check_realm(self.records.clone()).unwrap();
    }
}
