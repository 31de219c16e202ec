//! A vault in memory, as tests see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use marchland_proto::storage::channel_message::Body as Message;
use marchland_proto::storage::vault_entry::Body;
use marchland_proto::storage::{
    Admit, ChannelAck, ChannelMessage, ChannelMessages, Cut, Deposit, DirectoryChannel, DirectoryCounters, DirectoryCut,
    VaultAnswer, VaultCharacter, VaultStub, VaultUndo, Withdraw,
};
use marchland_types::{CharacterId, CutNumber, GroupId, LogIndex};

use super::{VaultAtCut, apply_vault, encode_vault_entry};
use crate::directory::testing::WORLD;
use crate::group::ApplyFault;
use crate::keys::Key;
use crate::testing::apply_to;

pub(crate) fn directory() -> GroupId {
    GroupId::directory(WORLD)
}

#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) group: GroupId,
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    pub(crate) index: u64,
}

impl Vault {
    pub(crate) fn new(k: u32) -> Self {
        Self { group: GroupId::vault(WORLD, k), records: BTreeMap::new(), index: 0 }
    }

    pub(crate) fn apply(&mut self, body: Body) -> VaultAnswer {
        self.apply_bytes(&encode_vault_entry(self.index * 50, body)).unwrap()
    }

    pub(crate) fn apply_bytes(&mut self, entry: &[u8]) -> Result<VaultAnswer, ApplyFault> {
        let (own, index) = (self.group, LogIndex(self.index));
        let (answer, _) = apply_to(&mut self.records, |view| apply_vault(view, own, index, entry))?;
        self.index += 1;
        Ok(answer)
    }

    pub(crate) fn deliver(&mut self, from: GroupId, seq: u64, body: Message) -> VaultAnswer {
        self.deliver_all(vec![ChannelMessage { from_group: from.0, seq, cut: 0, map_epoch: 1, body: Some(body) }])
    }

    pub(crate) fn deliver_all(&mut self, messages: Vec<ChannelMessage>) -> VaultAnswer {
        self.apply(Body::Messages(ChannelMessages { messages }))
    }

    pub(crate) fn ack(&mut self, from: GroupId, seq: u64) -> VaultAnswer {
        self.ack_behind(from, seq, 0)
    }

    pub(crate) fn ack_behind(&mut self, from: GroupId, seq: u64, cut: u64) -> VaultAnswer {
        self.apply(Body::Ack(ChannelAck { from_group: from.0, seq, cut }))
    }

    pub(crate) fn cut(&mut self, number: u64) -> VaultAnswer {
        self.apply(Body::Cut(Cut { number, now_ms: 0 }))
    }

    pub(crate) fn read<M: prost::Message + Default>(&self, key: Key) -> Option<M> {
        self.records.get(&key.encode()).map(|bytes| M::decode(bytes.clone()).unwrap())
    }

    pub(crate) fn kept(&self, id: u64) -> Option<VaultCharacter> {
        self.read(Key::Kept(CharacterId(id)))
    }

    pub(crate) fn stub(&self, id: u64) -> Option<VaultStub> {
        self.read(Key::Stub(CharacterId(id)))
    }

    pub(crate) fn set_aside(&self, from: GroupId, seq: u64) -> Option<ChannelMessage> {
        self.read(Key::SetAside(from, seq))
    }

    pub(crate) fn channel(&self, group: GroupId) -> DirectoryChannel {
        self.read(Key::Channel(group)).unwrap_or_default()
    }

    pub(crate) fn counters(&self) -> DirectoryCounters {
        self.read(Key::Counters).unwrap_or_default()
    }

    fn all<M: prost::Message + Default>(&self, of: &Key) -> Vec<(Key, M)> {
        let (from, to) = Key::range(of.ordinal());
        let pairs = self.records.range(from..to);
        pairs.map(|(key, value)| (Key::decode(key).unwrap(), M::decode(value.clone()).unwrap())).collect()
    }

    pub(crate) fn posted(&self, to: GroupId) -> Vec<ChannelMessage> {
        let all: Vec<(Key, ChannelMessage)> = self.all(&Key::Posted(to, 0));
        all.into_iter().filter(|(key, _)| matches!(key, Key::Posted(group, _) if *group == to)).map(|(_, m)| m).collect()
    }

    /// Characters that are kept.
    pub(crate) fn characters(&self) -> Vec<u64> {
        let all: Vec<(Key, VaultCharacter)> = self.all(&Key::Kept(CharacterId(0)));
        all.into_iter().map(|(key, _)| if let Key::Kept(id) = key { id.0 } else { unreachable!() }).collect()
    }

    pub(crate) fn stubs(&self) -> usize {
        self.all::<VaultStub>(&Key::Stub(CharacterId(0))).len()
    }

    /// What stood at a cut, if it can still be told.
    pub(crate) fn at_cut(&self, number: u64) -> Option<VaultAtCut> {
        let cut: DirectoryCut = self.read(Key::Cut(CutNumber(number)))?;
        let from = cut.undo_end;
        let mut state = VaultAtCut::new(cut);
        for (key, kept) in self.all::<VaultCharacter>(&Key::Kept(CharacterId(0))) {
            let Key::Kept(id) = key else { unreachable!() };
            state.kept(id, kept);
        }
        for (key, message) in self.all::<ChannelMessage>(&Key::Posted(GroupId(0), 0)) {
            let Key::Posted(to, _) = key else { unreachable!() };
            state.posted(to, &message);
        }
        for (_, message) in self.all::<ChannelMessage>(&Key::SetAside(GroupId(0), 0)) {
            state.set_aside(&message);
        }
        for (key, undo) in self.all::<VaultUndo>(&Key::Undo(0)) {
            if matches!(key, Key::Undo(n) if n >= from) {
                state.undo(undo);
            }
        }
        (from >= self.counters().undo_begin).then_some(state)
    }

    pub(crate) fn check(&self) {
        crate::check_vault(self.records.clone()).unwrap();
    }
}

pub(crate) fn deposit(character: u64, epoch: u64, move_number: u64) -> Message {
    let record = Bytes::from(format!("record {character} as of {move_number}"));
    Message::Deposit(Deposit { character, epoch, move_number, record, items: vec![character * 10, character * 10 + 1] })
}

pub(crate) fn withdraw(to: GroupId, character: u64, epoch: u64) -> Message {
    let admit = Admit { character, epoch, name: format!("n{character}"), move_number: 1, ..Admit::default() };
    Message::Withdraw(Withdraw { to_group: to.0, admit: Some(admit) })
}
