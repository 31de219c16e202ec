//! Opens a node's groups: the realm's if it hosts that, the directory's, those of the vaults, and one for every region of the world.
//!
//! All regions share the game, its parameters and the ground that these describe; each knows the map around itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use marchland_proto::storage::{DirectoryGenesis, Genesis, GroupPlan, Neighbour, RealmGenesis, RealmWorld};
use marchland_raft::{BoxFuture, Group, RaftNode};
use marchland_region::{GhostPosts, RegionMachine, RegionMachineOptions, RegionPort, RegionsService};
use marchland_region_core::{Game, Ground, character_template};
use marchland_router::{
    Audited, ClientOptions, Directory, DirectoryOptions, Issuer, PeerDelivery, Peers, PumpOptions, Realm, RealmClient, Registry,
    Routes, Vault, keep_realm_told,
};
use marchland_router_core::{MapRegion, RegionMap, grid};
use marchland_storage::checkpoint::Checkpoints;
use marchland_storage::folder::DataFolder;
use marchland_storage::keyed::KeyedNode;
use marchland_types::{GroupId, Incarnation, MapEpoch, NodeId, ReplicaId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admin::NodeAdmin;
use super::assembly::NodeError;
use super::birth;
use super::founding::{Founding, found_realm};
use super::front::Front;
use super::keeper::{Keeper, open_with_state};
use super::settings::NodeSettings;
use crate::seams::Seams;
use crate::served::Served;

/// Regions that are restored at a time: enough to keep disk and processors busy.
const OPENED_AT_ONCE: usize = 16;
/// Vaults of a new world.
const VAULTS: u32 = 4;

/// Every group of the world is on the same nodes, this one among them: its own replica knows best who leads.
pub(super) struct Members {
    raft: RaftNode,
    list: Vec<(NodeId, String)>,
}

impl Routes for Members {
    fn members(&self, _group: GroupId) -> BoxFuture<'_, Vec<(NodeId, String)>> {
        Box::pin(std::future::ready(self.list.clone()))
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.raft.group(group)?.status().leader.map(ReplicaId::node)
    }
}

type Machine<G, S> = RegionMachine<G, <S as Seams>::Disk, <S as Seams>::Executor>;

/// What is needed to open a node's groups.
pub(super) struct Opening<'a, S: Seams> {
    pub(super) seams: &'a S,
    pub(super) settings: &'a NodeSettings,
    pub(super) raft: &'a RaftNode,
    pub(super) peers: &'a Peers<S::Transport>,
    pub(super) registry: &'a Registry,
    pub(super) checkpoints: &'a Checkpoints<S::Disk>,
    pub(super) fatal: &'a watch::Sender<Option<String>>,
    pub(super) ghosts: GhostPosts,
}

impl<S: Seams> Opening<'_, S> {
    pub(super) async fn open_groups<G: Game>(
        &self,
        served: Served<G>,
        folder: &DataFolder<S::Disk>,
        front: &Front<S::Keyed, S::Clock>,
        service: &RegionsService,
        source: &Arc<NodeAdmin<S::Clock>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), NodeError> {
        let Self { seams, settings, raft, peers, registry, .. } = self;
        let world = settings.world;
        let voters = settings.voters();
        // Whichever replicas the nodes have now.
        let replicas: Vec<_> = settings.members.keys().map(|node| ReplicaId::new(*node, Incarnation(0))).collect();
        let map = WorldMap::of(settings, &served)?;

        let directory_id = GroupId::directory(world);
        let keyed = seams.open_keyed(&folder.keyed_dir(), settings.keyed).await?;
        // A later incarnation founds nothing: whoever leads a group takes it in.
        let founds = raft.replica().incarnation() == birth::FIRST;
        if !founds {
            tracing::warn!(replica = %raft.replica(), "not a founding replica: waits to be a member of its groups");
        }
        let realm_replica = self.open_realm(keyed.namespace(GroupId::realm()), front, founds, tasks).await?;
        let hosts = settings.realm.iter().map(|(node, address)| (*node, address.clone())).collect();
        let realm = Arc::new(RealmClient::new((*peers).clone(), hosts, 0, ClientOptions::default()));
        let store = keyed.namespace(directory_id);
        let issuer: Arc<dyn Issuer> = realm.clone();
        let options = DirectoryOptions::default();
        let told = (seams.clock(), (*registry).clone());
        let directory = Directory::open(raft, world, store, told, Some(issuer), &replicas, options).await?;

        let mut audited: BTreeMap<GroupId, Arc<dyn Audited>> = BTreeMap::new();
        audited.insert(directory_id, directory.service());
        let mut vaults = Vec::new();
        for k in 1..=VAULTS {
            let id = GroupId::vault(world, k);
            let options = DirectoryOptions::default();
            let vault = Vault::open(raft, (world, k), keyed.namespace(id), seams.clock(), &replicas, options).await?;
            front.vaults().insert(vault.service());
            audited.insert(id, vault.service());
            vaults.push(vault);
        }

        let opened: Vec<(Arc<Machine<G, S>>, Group)> = futures::stream::iter(map.regions.regions())
            .map(|region| self.open_region(&served, map.genesis(settings, &served, region), region, &replicas))
            .buffered(OPENED_AT_ONCE)
            .try_collect()
            .await?;
        let mut ports: BTreeMap<GroupId, Arc<dyn RegionPort>> = BTreeMap::new();
        for (machine, group) in &opened {
            service.add(machine.clone());
            ports.insert(group.id(), machine.clone());
        }

        let model = map.genesis(settings, &served, map.regions.entrance());
        let template = character_template(&served.game, &model).map_err(|unfit| unfit.to_string());
        front.directories().insert(directory.service());
        let groups: Vec<GroupId> = audited.keys().chain(ports.keys()).copied().collect();
        let plan = |group: &GroupId| plan(*group, &voters);
        let directory_genesis = DirectoryGenesis {
            world: world.0,
            name: settings.world_name.clone(),
            map_epoch: map.regions.epoch().0,
            plans: groups.iter().map(plan).collect(),
            map: map.list,
            token_key: Bytes::copy_from_slice(&settings.token_key),
            vaults: VAULTS,
        };
        tasks.spawn(birth::found(directory.service(), directory_genesis, self.fatal.clone()));
        let founding = Founding {
            realm: realm.clone(),
            directory: directory.service(),
            world: RealmWorld {
                world: world.0,
                name: settings.world_name.clone(),
                nodes: settings.members.keys().map(|node| node.0).collect(),
                plan: Some(plan(&directory_id)),
            },
            others: vaults.iter().map(|v| v.group().clone()).chain(opened.iter().map(|(_, group)| group.clone())).collect(),
            own: raft.replica(),
            voters,
            fatal: self.fatal.clone(),
        };
        if let Some(founding) = founding.needed().filter(|_| founds) {
            tasks.spawn(founding.run());
        }
        tasks.spawn(keep_realm_told(directory.service(), realm, (*registry).clone()));
        let members: Vec<_> = settings.members.iter().map(|(node, m)| (*node, m.grpc.clone())).collect();
        let routes = Members { raft: (*raft).clone(), list: members.clone() };
        let delivery = Arc::new(PeerDelivery::new((*peers).clone(), routes));
        tasks.spawn(directory.pump(delivery.clone(), PumpOptions::default()));
        for vault in vaults {
            tasks.spawn(vault.pump(delivery.clone(), PumpOptions::default()));
        }
        // It is no group of this world.
        let groups = realm_replica.iter().map(|_| GroupId::realm()).chain(groups).collect();
        audited.extend(realm_replica.map(|realm| (GroupId::realm(), realm.service() as Arc<dyn Audited>)));
        source.set_groups((*raft).clone(), groups, ports, audited, (*registry).clone(), template);
        let members: Arc<BTreeMap<_, _>> = Arc::new(members.into_iter().collect());
        for (machine, group) in opened {
            let keeper = Keeper {
                raft: (*raft).clone(),
                machine,
                peers: (*peers).clone(),
                members: members.clone(),
                delivery: delivery.clone(),
            };
            tasks.spawn(keeper.run(group));
        }
        Ok(())
    }

    /// Opens this node's replica of the realm, if it hosts one. It is initialised if nobody did before: its members are recorded by its
    /// own genesis.
    async fn open_realm(
        &self,
        store: S::Keyed,
        front: &Front<S::Keyed, S::Clock>,
        founds: bool,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<Realm<S::Keyed, S::Clock>>, NodeError> {
        let Self { seams, settings, raft, registry, .. } = self;
        if !settings.realm.contains_key(&settings.node) {
            return Ok(None);
        }
        // Whichever replicas the nodes have now.
        let replicas: Vec<_> = settings.realm.keys().map(|node| ReplicaId::new(*node, Incarnation(0))).collect();
        let told = (seams.clock(), (*registry).clone());
        let realm = Realm::open(raft, store, told, &replicas, DirectoryOptions::default()).await?;
        let voters = settings.realm_voters();
        if founds {
            // Idempotent, and at every start: a node that was away when the group was founded comes in the same way.
            realm.group().initialize(&voters).await?;
        }
        front.realm().set(realm.service());
        let genesis = RealmGenesis { cluster: settings.cluster.clone(), plan: Some(plan(GroupId::realm(), &voters)) };
        tasks.spawn(found_realm(realm.service(), genesis, self.fatal.clone()));
        Ok(Some(realm))
    }

    /// Opens one region's group.
    async fn open_region<G: Game>(
        &self,
        served: &Served<G>,
        genesis: Genesis,
        region: &MapRegion,
        replicas: &[ReplicaId],
    ) -> Result<(Arc<Machine<G, S>>, Group), NodeError> {
        let machine = Arc::new(RegionMachine::new(RegionMachineOptions {
            group: region.group,
            region: region.region,
            replica: self.raft.replica(),
            game: served.game.clone(),
            genesis,
            checkpoints: self.checkpoints.clone(),
            executor: self.seams.executor(),
            clock: self.seams.clock(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            budget: self.settings.budget,
            ghosts: self.ghosts.clone(),
        }));
        let group = open_with_state(self.raft, region.group, machine.clone(), replicas).await?;
        Ok((machine, group))
    }
}

fn plan(group: GroupId, voters: &BTreeSet<ReplicaId>) -> GroupPlan {
    GroupPlan { group: group.0, replicas: voters.iter().map(|replica| replica.0).collect() }
}

/// The map of a new world.
struct WorldMap {
    /// As it stands in the directory.
    list: Vec<Neighbour>,
    regions: RegionMap,
}

impl WorldMap {
    /// The ground of the game, cut as the settings say.
    fn of<G: Game>(settings: &NodeSettings, served: &Served<G>) -> Result<Self, NodeError> {
        let ground = served.game.ground(&served.parameters).map_err(|bad| NodeError::Settings(bad.to_string()))?;
        let list = grid(settings.world, ground.bounds(), settings.grid.columns, settings.grid.rows);
        let regions = RegionMap::parse(settings.world, MapEpoch(1), &list)
            .map_err(|bad| NodeError::Settings(format!("a grid of {} does not fit the ground: {bad}", settings.grid)))?;
        Ok(Self { list, regions })
    }

    /// What a region of a new world is made from. It knows itself, and its neighbours.
    fn genesis<G: Game>(&self, settings: &NodeSettings, served: &Served<G>, region: &MapRegion) -> Genesis {
        Genesis {
            world: settings.world.0,
            region: region.region.0,
            seed: settings.seed,
            rules_version: served.game.rules_version(),
            content_hash: served.game.content_hash(),
            parameters: served.parameters.clone(),
            map: self.regions.told_to(region.region, None),
            map_epoch: self.regions.epoch().0,
            vaults: VAULTS,
        }
    }
}
