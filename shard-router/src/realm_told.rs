//! Tells the realm what a directory knows of its world and nodes.
//!
//! Founding folders took their incarnation before anybody could issue it, and a deployment may be older than its realm. Whoever leads
//! the directory tells the realm until it has it all; the world does not wait for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marchland_proto::codes::Code;
use marchland_proto::net::Transport;
use marchland_proto::storage::{NodeRegistration, RealmNode, RealmWorld};
use marchland_raft::{Group, Role};
use marchland_storage::keyed::KeyedStore;
use marchland_types::seam::Clock;
use marchland_types::{GroupId, Incarnation, NodeId, ReplicaId, Term};
use tokio::time::sleep;

use crate::realm_client::{RealmClient, RealmError};
use crate::registry::Registry;
use crate::service::DirectoryService;

/// How long one order is tried before it is begun again.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Pause after the realm could not be told; doubled each time, up to the maximum.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What the realm has been told from here. It forgets nothing, so this is not forgotten either.
#[derive(Default)]
struct Told {
    world: bool,
    nodes: BTreeMap<NodeId, Incarnation>,
}

/// Tells the realm while this replica leads its directory, until the group stops. To be run as a task. `registry` is the directory's:
/// it says when there is something new.
pub async fn keep_realm_told<K: KeyedStore, C: Clock, T: Transport>(
    service: Arc<DirectoryService<Group, K, C>>,
    realm: Arc<RealmClient<T>>,
    registry: Registry,
) {
    let mut status = service.group().watch();
    let mut news = registry.news();
    let mut told = Told::default();
    let mut pause = PAUSE;
    // The term for which everything is told that was known.
    let mut done: Option<Term> = None;
    loop {
        let role = status.borrow_and_update().role;
        if news.has_changed().unwrap_or(false) {
            news.mark_unchanged();
            done = None;
        }
        match role {
            Role::Stopped => return,
            Role::Leader(term) if done != Some(term) => match told.bring_up(&service, &realm).await {
                Ok(()) => (done, pause) = (Some(term), PAUSE),
                Err(reason) => {
                    tracing::debug!(world = %service.world(), %reason, "the realm is not told everything yet");
                    sleep(pause).await;
                    pause = PAUSE_MAX.min(pause * 2);
                    continue;
                }
            },
            Role::Leader(_) | Role::Follower { .. } | Role::Learner { .. } => {}
        }
        tokio::select! {
            biased;
            changed = status.changed() => if changed.is_err() { return },
            changed = news.changed() => match changed {
                Ok(()) => done = None,
                Err(_) => return,
            },
        }
    }
}

impl Told {
    async fn bring_up<K: KeyedStore, C: Clock, T: Transport>(
        &mut self,
        service: &DirectoryService<Group, K, C>,
        realm: &RealmClient<T>,
    ) -> Result<(), String> {
        let unreadable = |error: crate::ReadError| error.to_string();
        let own = service.world();
        if !self.world {
            let world = service.view().world().await.map_err(unreadable)?.ok_or("the world has not begun")?;
            let plan = service.view().plan(GroupId::directory(own)).await.map_err(unreadable)?;
            let plan = plan.ok_or("the directory does not know its own plan")?;
            let mut nodes: Vec<_> = plan.replicas.iter().map(|id| ReplicaId(*id).node().0).collect();
            nodes.sort_unstable();
            let world = RealmWorld { world: own.0, name: world.name, nodes, plan: Some(plan) };
            realm.record_world(world, TELL_WITHIN).await.map_err(|error| refused(&error, "world"))?;
            self.world = true;
        }
        for known in service.view().nodes().await.map_err(unreadable)? {
            let (node, incarnation) = (NodeId(known.node), Incarnation(known.incarnation));
            if self.nodes.get(&node) >= Some(&incarnation) {
                continue;
            }
            let claim = NodeRegistration {
                node: known.node,
                folder_id: known.folder_id,
                grpc: known.grpc,
                ws: known.ws,
                http: known.http,
                incarnation: known.incarnation,
                issued: 0,
            };
            let claim = RealmNode { world: own.0, node: Some(claim), at_least: 0 };
            match realm.register_node(claim, TELL_WITHIN).await {
                Ok(same) if same == incarnation => {}
                Ok(other) => {
                    tracing::error!(%node, %incarnation, %other, "directory and realm know a data folder by two incarnations");
                }
                // The realm has issued a later one, of which this directory will hear.
                Err(RealmError::Refused { code: Code::Superseded, .. }) => {}
                Err(error) => return Err(refused(&error, "node")),
            }
            self.nodes.insert(node, incarnation);
        }
        Ok(())
    }
}

/// A refusal needs a person; that the realm is away does not.
fn refused(error: &RealmError, what: &str) -> String {
    if matches!(error, RealmError::Refused { .. }) {
        tracing::error!(%error, "the realm does not take a {what} that its directory knows");
    }
    error.to_string()
}
