//! What a vault held at a cut, told from what it holds now and what it listed since.
//!
//! Exact even if the records are read while entries are applied, as long as the list is read last: whatever changed after the
//! cut, and so may have been read before or after its change, is in the list as it was at the cut. Its first mention counts.

use std::collections::BTreeMap;

use marchland_proto::cluster::{InFlight, Taken};
use marchland_proto::storage::channel_message::Body;
use marchland_proto::storage::vault_undo::What;
use marchland_proto::storage::{ChannelMessage, DirectoryCut, VaultBefore, VaultCharacter, VaultTrimmed, VaultUndo};
use marchland_types::{CharacterId, GroupId};

/// Gathers a vault's records. Records are given first, then the undo records from the cut on, in their order.
pub struct VaultAtCut {
    cut: DirectoryCut,
    /// Items of the characters that were kept.
    kept: BTreeMap<u64, Option<Vec<u64>>>,
    undone: BTreeMap<u64, Option<Vec<u64>>>,
    set_aside: Vec<(u64, Vec<u64>)>,
    outbox: BTreeMap<(u64, u64), (u64, Vec<u64>)>,
}

impl VaultAtCut {
    /// For this cut.
    #[must_use]
    pub fn new(cut: DirectoryCut) -> Self {
        Self { cut, kept: BTreeMap::new(), undone: BTreeMap::new(), set_aside: Vec::new(), outbox: BTreeMap::new() }
    }

    /// A character that is kept.
    pub fn kept(&mut self, character: CharacterId, kept: VaultCharacter) {
        self.kept.insert(character.0, Some(kept.items));
    }

    /// A message that waits in an outbox.
    pub fn posted(&mut self, to: GroupId, message: &ChannelMessage) {
        if let Some(Body::Admit(admit)) = &message.body {
            self.on_its_way(to.0, message.seq, admit.character, admit.items.clone());
        }
    }

    /// A message that was set aside. A character in it is here as much as one that is kept.
    pub fn set_aside(&mut self, message: &ChannelMessage) {
        let taken = self.cut.channels.iter().find(|channel| channel.group == message.from_group);
        if taken.is_some_and(|channel| message.seq <= channel.taken_seq) {
            match &message.body {
                Some(Body::Deposit(deposit)) => self.set_aside.push((deposit.character, deposit.items.clone())),
                Some(Body::Moved(moved)) => {
                    if let Some(Body::Admit(admit)) = moved.message.as_ref().and_then(|message| message.body.as_ref()) {
                        self.set_aside.push((admit.character, admit.items.clone()));
                    }
                }
                _ => {}
            }
        }
    }

    /// What changed after the cut, oldest first.
    pub fn undo(&mut self, undo: VaultUndo) {
        match undo.what {
            Some(What::Character(VaultBefore { character, held, items })) => {
                self.undone.entry(character).or_insert(held.then_some(items));
            }
            Some(What::Trimmed(VaultTrimmed { to_group, seq, character, items })) => {
                self.on_its_way(to_group, seq, character, items);
            }
            None => {}
        }
    }

    fn on_its_way(&mut self, to: u64, seq: u64, character: u64, items: Vec<u64>) {
        let channel = self.cut.channels.iter().find(|channel| channel.group == to);
        if channel.is_some_and(|channel| channel.acked_seq < seq && seq <= channel.posted_seq) {
            self.outbox.insert((to, seq), (character, items));
        }
    }

    /// Characters, ascending but for those that are set aside, and all items that they have.
    #[must_use]
    pub fn held(&self) -> (Vec<u64>, Vec<u64>) {
        let mut all = self.kept.clone();
        all.extend(self.undone.clone());
        let held = all.into_iter().filter_map(|(character, items)| Some((character, items?))).chain(self.set_aside.clone());
        let (mut characters, mut items) = (Vec::new(), Vec::new());
        for (character, own) in held {
            characters.push(character);
            items.extend(own);
        }
        (characters, items)
    }

    /// What waited in outboxes, with a character.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight> {
        let one = |(&(to_group, seq), (character, items)): (&(u64, u64), &(u64, Vec<u64>))| InFlight {
            to_group,
            seq,
            items: items.clone(),
            characters: vec![*character],
            sessions: Vec::new(),
        };
        self.outbox.iter().map(one).collect()
    }

    /// What had been taken, by sender.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        taken_at(&self.cut)
    }
}

/// What had been taken at a cut, by sender.
#[must_use]
pub fn taken_at(cut: &DirectoryCut) -> Vec<Taken> {
    let taken = cut.channels.iter().filter(|channel| channel.taken_seq > 0);
    taken.map(|channel| Taken { from_group: channel.group, seq: channel.taken_seq }).collect()
}
