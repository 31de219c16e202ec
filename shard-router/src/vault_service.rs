//! A vault's service on one node.
//!
//! Only the leader carries out orders; others name it. An order with an unknown outcome is proposed again until its deadline:
//! all of them take effect once, however often they are committed.

use bytes::Bytes;
use marchland_proto::cluster::{
    DeliverAnswer, DeliverRequest, InspectReply, SeedCharactersReply, SeedCharactersRequest, TakeCutReply,
};
use marchland_proto::net::PeerIdentity;
use marchland_proto::storage::vault_entry::Body;
use marchland_proto::storage::{ChannelAck, Cut, VaultAnswer, VaultSeed};
use marchland_raft::BoxFuture;
use marchland_router_core::encode_vault_entry;
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId};

use crate::group::KeyedGroup;
use crate::inspect::{self, Audited, cut_reply, not_seeded};
use crate::options::DirectoryOptions;
use crate::orders::{OrderError, Orders, Taken};
use crate::outbox::KeyedService;
use crate::records::Records;

/// One vault on one node.
pub struct VaultService<G, K, C> {
    orders: Orders<G, C>,
    records: Records<K>,
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> VaultService<G, K, C> {
    /// Of the vault `id`, over a group and the records of its machine.
    pub fn new(id: GroupId, group: G, records: Records<K>, clock: C, options: DirectoryOptions) -> Self {
        Self { orders: Orders::new(id, group, clock, options), records }
    }

    /// Which vault.
    pub fn id(&self) -> GroupId {
        self.orders.id
    }

    /// The group.
    pub fn group(&self) -> &G {
        &self.orders.group
    }

    /// Commits an order and returns its answer, which may be a refusal. Leaders only.
    ///
    /// An unknown outcome is tried again until the deadline, except a cut without a number: two of those are two cuts.
    pub async fn order(&self, body: Body) -> Result<VaultAnswer, OrderError> {
        let repeatable = !matches!(&body, Body::Cut(cut) if cut.number == 0);
        self.orders.order(repeatable, |now_ms| encode_vault_entry(now_ms, body.clone())).await
    }

    /// Takes messages of another group's channel: they are committed when this says so.
    pub async fn deliver(&self, peer: &PeerIdentity, request: DeliverRequest) -> DeliverAnswer {
        let commit = async |messages| {
            let taken = self.order(Body::Messages(messages)).await?;
            Ok(Taken { code: taken.code, reason: taken.reason, seq: taken.taken_seq, cut: taken.cut })
        };
        self.orders.deliver(peer, request, commit).await
    }

    /// Takes a cut, or (0) the next one; the reply names the highest that has been taken. Leaders only.
    pub async fn take_cut(&self, number: CutNumber) -> TakeCutReply {
        let order = Body::Cut(Cut { number: number.0, now_ms: 0 });
        let taken = self.order(order).await.map(|answer| (answer.code, answer.reason, answer.cut));
        cut_reply(&self.records, taken).await
    }

    /// What stood at a cut, or (0) stands now: characters that are kept or set aside, their items, and those that wait in
    /// outboxes.
    pub async fn inspect(&self, cut: CutNumber) -> InspectReply {
        inspect::vault(self.orders.id, &self.records, cut).await
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> KeyedService for VaultService<G, K, C> {
    type Store = K;

    fn records(&self) -> &Records<K> {
        &self.records
    }

    async fn acknowledge(&self, ack: ChannelAck) -> Result<Result<(), String>, OrderError> {
        let answer = self.order(Body::Ack(ack)).await?;
        Ok(if answer.code == 0 { Ok(()) } else { Err(answer.reason) })
    }
}

impl<G: KeyedGroup, K: KeyedStore, C: Clock> Audited for VaultService<G, K, C> {
    fn take_cut(&self, number: CutNumber) -> BoxFuture<'_, TakeCutReply> {
        Box::pin(Self::take_cut(self, number))
    }

    fn inspect(&self, cut: CutNumber) -> BoxFuture<'_, InspectReply> {
        Box::pin(Self::inspect(self, cut))
    }

    fn seed(&self, request: SeedCharactersRequest, record: Bytes) -> BoxFuture<'_, SeedCharactersReply> {
        Box::pin(async move {
            let SeedCharactersRequest { first, count, vaults, .. } = request;
            match self.order(Body::Seed(VaultSeed { first, count, vaults, record })).await {
                Ok(answer) => SeedCharactersReply {
                    code: answer.code,
                    reason: answer.reason,
                    seeded: answer.seeded,
                    ..SeedCharactersReply::default()
                },
                Err(error) => not_seeded(&error),
            }
        })
    }
}
