//! Who this node is: the incarnation of its data folder.
//!
//! A replica that forgot its votes must not speak for the one that cast them, so a folder's incarnation is issued by the
//! world's directory and bound to the folder's random id. Before there is a directory, the founding nodes agree on the
//! first incarnation without it: a node takes it only when every other member says that it has never seen the world made.
//!
//! ```text
//! folder has an incarnation               → that one
//! some member knows the world             → what the directory issues (waits for its leader)
//! every other member says "unborn"        → the first
//! some member can not be asked            → waits: it may know more
//! the folder was started anew              → never the first: there was a world
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::cluster::RegisterRequest;
use marchland_proto::cluster::directory_client::DirectoryClient as Grpc;
use marchland_proto::codes::Code;
use marchland_proto::net::ClusterClient;
use marchland_proto::storage::directory_entry::Body;
use marchland_proto::storage::{DirectoryGenesis, NodeRegistration};
use marchland_raft::{Group, Role, Standing};
use marchland_router::{ClientOptions, DirectoryClient, DirectoryError, DirectoryService, Peers, Registry};
use marchland_storage::folder::{DataFolder, FolderId};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{Incarnation, ReplicaId};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::assembly::NodeError;
use super::settings::NodeSettings;
use crate::seams::Seams;

/// The incarnation of the founding nodes.
pub(super) const FIRST: Incarnation = Incarnation(1);
/// How long one member may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(50);
/// Rounds between two lines in the log.
const TELL_EVERY: u32 = 100;
/// How long one registration is tried before it is begun again.
const REGISTER_WITHIN: Duration = Duration::from_secs(5);
/// Pause after the directory refused to make the world: it will again, until the configuration is changed.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two registrations that found no leader.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);

/// `has` is the incarnation that the folder has; none for one that asks for it.
fn registration(settings: &NodeSettings, folder: FolderId, has: Option<Incarnation>) -> NodeRegistration {
    let own = settings.members.get(&settings.node);
    NodeRegistration {
        node: settings.node.0,
        folder_id: Bytes::copy_from_slice(&folder.0),
        grpc: own.map(|m| m.grpc.clone()).unwrap_or_default(),
        ws: own.map(|m| m.ws.clone()).unwrap_or_default(),
        http: String::new(),
        incarnation: has.map_or(0, |has| has.0),
        issued: 0,
    }
}

/// What the others say about a folder that has no incarnation.
enum Heard {
    Issued(Incarnation),
    Unborn,
    Nothing(String),
}

/// The incarnation of the folder; asks until it is known, and records it.
pub(super) async fn incarnation<S: Seams>(
    peers: &Peers<S::Transport>,
    settings: &NodeSettings,
    folder: &mut DataFolder<S::Disk>,
) -> Result<Incarnation, NodeError> {
    if let Some(known) = folder.incarnation() {
        return Ok(known);
    }
    let request = RegisterRequest { world: settings.world.0, node: Some(registration(settings, folder.id(), None)) };
    let mut round: u32 = 0;
    let issued = loop {
        let mut waiting_for = Vec::new();
        let mut issued = None;
        for (node, member) in settings.members.iter().filter(|(node, _)| **node != settings.node) {
            match ask::<S>(peers, &member.grpc, request.clone()).await {
                Heard::Issued(incarnation) => issued = Some(incarnation),
                Heard::Unborn => {}
                Heard::Nothing(reason) => waiting_for.push(format!("node {node}: {reason}")),
            }
        }
        match (issued, waiting_for.is_empty()) {
            (Some(incarnation), _) => break incarnation,
            // It was of a world once: it founds none over what may have been lost.
            (None, true) if folder.is_anew() => waiting_for.push("nobody knows the world that this node was part of".into()),
            (None, true) => break FIRST,
            (None, false) => {}
        }
        if round.is_multiple_of(TELL_EVERY) {
            tracing::info!(waiting_for = waiting_for.join("; "), "new data folder: waiting to learn its incarnation");
        }
        round = round.wrapping_add(1);
        sleep(PAUSE).await;
    };
    folder.set_incarnation(issued)?;
    tracing::info!(folder = %folder.id(), incarnation = %issued, "data folder has its incarnation");
    Ok(issued)
}

async fn ask<S: Seams>(peers: &Peers<S::Transport>, address: &str, request: RegisterRequest) -> Heard {
    let mut client = Grpc::over(peers.channel(address));
    match timeout(ASK_WITHIN, client.register(request)).await {
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            match Code::from_u32(reply.code) {
                Some(Code::Ok) => Heard::Issued(Incarnation(reply.incarnation)),
                Some(Code::Unborn) => Heard::Unborn,
                _ => Heard::Nothing(reply.reason),
            }
        }
        Ok(Err(status)) => Heard::Nothing(status.message().to_owned()),
        Err(_) => Heard::Nothing("no answer".into()),
    }
}

/// Registers the node with its directory, which then knows its addresses; a node whose folder was replaced by another one
/// meanwhile learns it here and stops.
pub(super) async fn register<S: Seams>(
    peers: Peers<S::Transport>,
    settings: NodeSettings,
    folder: FolderId,
    own: Incarnation,
    fatal: watch::Sender<Option<String>>,
) {
    let members = settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect();
    let client = DirectoryClient::new(settings.world, peers, members, 0, ClientOptions::default());
    loop {
        match client.register(registration(&settings, folder, Some(own)), REGISTER_WITHIN).await {
            Ok(incarnation) if incarnation == own => return,
            Ok(other) => {
                fatal.send_replace(Some(format!("the directory knows this data folder as incarnation {other}, it says {own}")));
                return;
            }
            Err(DirectoryError::Refused { code: Code::Superseded, reason }) => {
                fatal.send_replace(Some(format!("another data folder took this node over: {reason}")));
                return;
            }
            Err(error) => tracing::debug!(%error, "not registered with the directory yet"),
        }
        sleep(REGISTER_PAUSE).await;
    }
}

/// Stops the node when its directory knows a newer data folder of it: this one must not speak any more.
pub(super) async fn stand_down(registry: Registry, own: ReplicaId, fatal: watch::Sender<Option<String>>) {
    let mut known = registry.watch();
    loop {
        if registry.standing(own) == Standing::Superseded {
            let newest = registry.newest(own.node()).unwrap_or_default();
            fatal.send_replace(Some(format!("another data folder took this node over: it has incarnation {newest}")));
            return;
        }
        if known.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a world has other groups than a node is configured for. Its borders may have moved since it was made.
fn is_of_another_map(world: &DirectoryGenesis, configured: &DirectoryGenesis) -> bool {
    let groups = |of: &DirectoryGenesis| of.map.iter().map(|region| region.group).collect::<BTreeSet<_>>();
    let has_moved = world.map_epoch > configured.map_epoch;
    (world.map != configured.map && !has_moved) || groups(world) != groups(configured)
}

/// Makes the world, if this replica leads a directory that has none. Ends when the world is there. A node that is configured for
/// another map than the world was made with would open other groups than the rest, and stops.
pub(super) async fn found<K: KeyedStore, C: Clock>(
    service: Arc<DirectoryService<Group, K, C>>,
    genesis: DirectoryGenesis,
    fatal: watch::Sender<Option<String>>,
) {
    let mut status = service.group().watch();
    loop {
        let role = status.borrow_and_update().role;
        if role == Role::Stopped {
            return;
        }
        match service.view().world().await {
            Ok(Some(world)) if is_of_another_map(&world, &genesis) => {
                let (has, told) = (world.map.len(), genesis.map.len());
                fatal.send_replace(Some(format!(
                    "the world was made with another map ({has} regions) than this node is configured for ({told}): see world.grid and world.ground"
                )));
                return;
            }
            Ok(Some(_)) => return,
            Ok(None) if matches!(role, Role::Leader(_)) => {
                // Two leaders may both try: the first one makes it.
                match service.order(Body::Genesis(genesis.clone())).await {
                    Ok(answer) if answer.code == 0 => tracing::info!("the world is made"),
                    Ok(answer) => {
                        tracing::error!(code = answer.code, reason = answer.reason, "the world can not be made as configured");
                        sleep(REFUSED_PAUSE).await;
                    }
                    Err(error) => tracing::warn!(%error, "the world could not be made yet"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the directory can not be read"),
        }
        // A change of role, or a while: a follower sees the world when its leader made it.
        let _ = timeout(PAUSE * 4, status.changed()).await;
    }
}
