//! A directory in memory, as tests see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{
    ChannelAck, ChannelMessage, DirectoryAnswer, DirectoryChannel, DirectoryCharacter, DirectoryCounters, DirectoryGenesis,
    GroupPlan, LocationUpdate, Neighbour, NodeRegistration, SignInAnswer, SignInOrder,
};
use marchland_types::{CharacterId, GroupId, LogIndex, NodeId, RegionId, ReplicaId, WorldId};
use prost::Message as _;

use super::{apply, encode_entry};
use crate::group::ApplyFault;
use crate::keys::Key;
use crate::names::Name;
use crate::testing::apply_to;
use crate::token::TokenSigner;

pub(crate) const WORLD: WorldId = WorldId(1);

pub(crate) fn region(n: u32) -> GroupId {
    GroupId::region(WORLD, RegionId(n))
}

#[derive(Clone, Default)]
pub(crate) struct Directory {
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    pub(crate) index: u64,
    /// Most rounds of fetching that an entry took.
    pub(crate) rounds_max: usize,
}

pub(crate) fn vault(k: u32) -> GroupId {
    GroupId::vault(WORLD, k)
}

/// The same with vaults.
pub(crate) fn genesis_with_vaults(regions: u32, vaults: u32) -> DirectoryGenesis {
    let mut genesis = genesis(regions);
    let replicas = genesis.plans[0].replicas.clone();
    genesis.plans.extend((1..=vaults).map(|k| GroupPlan { group: vault(k).0, replicas: replicas.clone() }));
    DirectoryGenesis { vaults, ..genesis }
}

pub(crate) fn genesis(regions: u32) -> DirectoryGenesis {
    let square = |n: u32| Neighbour {
        region: n,
        group: region(n).0,
        min_x: n as f32 * 100.0,
        min_z: 0.0,
        max_x: n as f32 * 100.0 + 100.0,
        max_z: 100.0,
    };
    let replicas: Vec<u64> = (1..=3).map(|n| ReplicaId::new(NodeId(n), 1.into()).0).collect();
    DirectoryGenesis {
        world: WORLD.0,
        name: "aurora".into(),
        map_epoch: 1,
        map: (1..=regions).map(square).collect(),
        plans: (1..=regions).map(|n| GroupPlan { group: region(n).0, replicas: replicas.clone() }).collect(),
        token_key: TokenSigner::from_seed(&[1; 32]).public_key().to_vec().into(),
        vaults: 0,
    }
}

pub(crate) fn sign_in(account: &str, name: &str, request_id: u64) -> SignInOrder {
    let name = Name::parse(name).unwrap();
    SignInOrder {
        account: account.into(),
        character_name: name.shown().into(),
        folded_name: name.folded().into(),
        secret_hash: vec![request_id as u8; 32].into(),
        request_id,
    }
}

impl Directory {
    pub(crate) fn begun(regions: u32) -> Self {
        let mut directory = Self::default();
        assert_eq!(directory.apply(Body::Genesis(genesis(regions))), DirectoryAnswer::default());
        directory
    }

    pub(crate) fn begun_with_vaults(regions: u32, vaults: u32) -> Self {
        let mut directory = Self::default();
        assert_eq!(directory.apply(Body::Genesis(genesis_with_vaults(regions, vaults))), DirectoryAnswer::default());
        directory
    }

    pub(crate) fn apply(&mut self, body: Body) -> DirectoryAnswer {
        self.apply_bytes(&encode_entry(self.index * 50, body)).unwrap()
    }

    pub(crate) fn apply_bytes(&mut self, entry: &[u8]) -> Result<DirectoryAnswer, ApplyFault> {
        let index = LogIndex(self.index);
        let (answer, rounds) = apply_to(&mut self.records, |view| apply(view, index, entry))?;
        self.index += 1;
        self.rounds_max = self.rounds_max.max(rounds);
        Ok(answer)
    }

    pub(crate) fn sign_in(&mut self, account: &str, name: &str, request_id: u64) -> SignInAnswer {
        let answer = self.apply(Body::SignIn(sign_in(account, name, request_id)));
        answer.sign_in.unwrap_or(SignInAnswer { code: answer.code, ..SignInAnswer::default() })
    }

    pub(crate) fn register(&mut self, node: u32, folder: u8) -> DirectoryAnswer {
        self.claim(node, folder, 0)
    }

    /// Registers a folder that has an incarnation already, or (0) has none.
    pub(crate) fn claim(&mut self, node: u32, folder: u8, incarnation: u32) -> DirectoryAnswer {
        self.registered(node, folder, incarnation, 0)
    }

    /// Registers a folder to which the realm issued an incarnation.
    pub(crate) fn issued(&mut self, node: u32, folder: u8, issued: u32) -> DirectoryAnswer {
        self.registered(node, folder, 0, issued)
    }

    fn registered(&mut self, node: u32, folder: u8, incarnation: u32, issued: u32) -> DirectoryAnswer {
        let order = NodeRegistration {
            node,
            folder_id: vec![folder; 16].into(),
            grpc: format!("127.0.0.1:{folder}"),
            incarnation,
            issued,
            ..NodeRegistration::default()
        };
        self.apply(Body::Node(order))
    }

    pub(crate) fn deliver(&mut self, from: GroupId, seq: u64, body: Message) -> DirectoryAnswer {
        let message = ChannelMessage { from_group: from.0, seq, cut: 0, map_epoch: 1, body: Some(body) };
        self.apply(Body::Message(message))
    }

    pub(crate) fn located(&mut self, from: GroupId, seq: u64, character: u64, move_number: u64) -> DirectoryAnswer {
        let update = LocationUpdate { character, move_number, group: from.0, present: true };
        self.deliver(from, seq, Message::Location(update))
    }

    pub(crate) fn ack(&mut self, from: GroupId, seq: u64) -> DirectoryAnswer {
        self.ack_behind(from, seq, 0)
    }

    pub(crate) fn ack_behind(&mut self, from: GroupId, seq: u64, cut: u64) -> DirectoryAnswer {
        self.apply(Body::Ack(ChannelAck { from_group: from.0, seq, cut }))
    }

    fn read<M: prost::Message + Default>(&self, key: Key) -> M {
        self.records.get(&key.encode()).map(|bytes| M::decode(bytes.clone()).unwrap()).unwrap_or_default()
    }

    pub(crate) fn character(&self, id: u64) -> DirectoryCharacter {
        self.read(Key::Character(CharacterId(id)))
    }

    pub(crate) fn channel(&self, group: GroupId) -> DirectoryChannel {
        self.read(Key::Channel(group))
    }

    pub(crate) fn counters(&self) -> DirectoryCounters {
        self.read(Key::Counters)
    }

    pub(crate) fn posted(&self, to: GroupId) -> Vec<ChannelMessage> {
        let (from, end) = (Key::Posted(to, 0).encode(), Key::Posted(to, u64::MAX).encode());
        self.records.range(from..=end).map(|(_, v)| ChannelMessage::decode(v.clone()).unwrap()).collect()
    }

    pub(crate) fn check(&self) {
        crate::check(self.records.clone()).unwrap();
    }
}
