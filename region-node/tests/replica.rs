//! A replica on real worker threads. Rules that panic in a tick, and rules that do not return: the region halts, alone, and goes on.
//! Messages that were posted before it owned the region.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use marchland_proto::storage::{AdminOrder, Genesis};
use marchland_raft::{Entry, Machine, Payload, Role};
use marchland_region::{GhostPosts, RegionMachine, RegionMachineOptions, RegionPort, StepBudget, ThreadExecutor};
use marchland_region_core::testing::Script;
use marchland_region_core::{
    Action, BadParameters, CharacterId, Context, EntityId, Game, OpenGround, Order, Refusal, Registry, Spawn, skip_entry,
};
use marchland_storage::checkpoint::{CheckpointOptions, Checkpoints};
use marchland_storage::disk::SimDisk;
use marchland_types::seam::Clock;
use marchland_types::{CutNumber, GroupId, Incarnation, LogIndex, NodeId, Position, RegionId, ReplicaId, Term, WorldId};
use tokio::time::timeout;

/// An order that makes the next tick panic.
const PANIC: u32 = 1;
/// An order whose handler does not return before it is let go.
const WAIT: u32 = 2;

const WITHIN: Duration = Duration::from_secs(20);
const BUDGET: StepBudget = StepBudget { step: Duration::from_millis(50), stuck: Duration::from_millis(500) };

struct Meadow {
    let_go: Arc<AtomicBool>,
}

impl Game for Meadow {
    type Ground = OpenGround;

    fn rules_version(&self) -> u64 {
        1
    }

    fn content_hash(&self) -> u64 {
        0
    }

    fn components(&self, _: &mut Registry) {}

    fn ground(&self, _: &[u8]) -> Result<OpenGround, BadParameters> {
        Ok(OpenGround::new(100.0))
    }

    fn enter(&self, _: &mut Context<'_, Self>, _: CharacterId, _: &str) -> Spawn {
        Spawn::new(9).at([50.0, 0.0, 50.0])
    }

    fn command(&self, _: &mut Context<'_, Self>, _: EntityId, _: Action<'_>) -> Result<Bytes, Refusal> {
        Err(Refusal::unknown_action())
    }

    fn order(&self, ctx: &mut Context<'_, Self>, order: Order<'_>) -> Result<Bytes, Refusal> {
        match order.code {
            PANIC => drop(ctx.spawn(Spawn::new(PANIC).at([1.0, 0.0, 1.0]))),
            _ => {
                while !self.let_go.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
        }
        Ok(Bytes::new())
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        let doomed = ctx.entities().any(|view| view.identity.kind == PANIC);
        assert!(!doomed, "planted");
    }
}

#[derive(Clone, Copy)]
struct Still;

impl Clock for Still {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

type Replica = RegionMachine<Meadow, SimDisk, ThreadExecutor>;

fn replica(region: u32, executor: &ThreadExecutor, let_go: &Arc<AtomicBool>, budget: StepBudget) -> Arc<Replica> {
    let checkpoints = Checkpoints::open(SimDisk::new(1), Path::new("/checkpoints"), CheckpointOptions::default()).unwrap();
    Arc::new(RegionMachine::new(RegionMachineOptions {
        group: GroupId::region(WorldId(1), RegionId(region)),
        region: RegionId(region),
        replica: ReplicaId::new(NodeId(1), Incarnation(1)),
        game: Arc::new(Meadow { let_go: let_go.clone() }),
        genesis: Genesis::default(),
        checkpoints,
        executor: executor.clone(),
        clock: Still,
        build: "test".into(),
        budget,
        ghosts: GhostPosts::default(),
    }))
}

/// A region's log, as raft hands it over.
struct Log(Script);

impl Log {
    fn new() -> Self {
        let mut script = Script::new(&Meadow { let_go: Arc::default() }, Vec::new());
        script.tick();
        Self(script)
    }

    fn order(&mut self, code: u32) {
        let id = self.0.log().len() as u64;
        self.0.pending().orders.push(AdminOrder { id, code, ..AdminOrder::default() });
        self.0.tick();
    }

    fn last(&self) -> LogIndex {
        LogIndex(self.0.log().len() as u64)
    }

    fn entry(&self, index: LogIndex) -> Entry {
        let bytes = self.0.log()[index.0 as usize - 1].clone();
        Entry { position: Position { term: Term(1), index }, payload: Payload::Command(bytes.into()) }
    }

    fn entries(&self, from: u64, upto: LogIndex) -> Vec<Entry> {
        (from..=upto.0).map(|index| self.entry(LogIndex(index))).collect()
    }
}

async fn hash(replica: &Arc<Replica>) -> u64 {
    replica.clone().inspect(CutNumber(0)).await.state_hash
}

#[tokio::test]
async fn a_tick_that_panics_halts_its_region_and_is_skipped_from_a_checkpoint_or_from_nothing() {
    let executor = ThreadExecutor::start(1).unwrap();
    // A panic that is told with its backtrace takes its time.
    let budget = StepBudget::default();
    let (replica, other) = (replica(1, &executor, &Arc::default(), budget), replica(1, &executor, &Arc::default(), budget));
    let mut log = Log::new();
    for replica in [&replica, &other] {
        replica.restored().await.unwrap();
        replica.apply(log.entries(1, log.last())).await.unwrap();
    }
    // One of them has a checkpoint.
    replica.persist().await.unwrap();
    let durable = log.last();
    log.0.tick();
    log.order(PANIC);
    let at = log.last();
    for replica in [&replica, &other] {
        replica.role(Role::Leader(Term(1)));
        let fault = replica.apply(log.entries(durable.0 + 1, at)).await.unwrap_err();
        assert!(fault.reason.contains("the game's tick panicked: planted"), "{fault}");
        let halt = replica.halted().unwrap();
        assert_eq!((halt.index, replica.facts().owner), (at, false));

        let restored = replica.restored().await.unwrap().position.map_or(LogIndex(0), |position| position.index);
        assert_eq!(replica.halted(), None);
        replica.apply(log.entries(restored.0 + 1, LogIndex(at.0 - 1))).await.unwrap();
        assert!(!replica.facts().owner, "what was told before is not told again");
        replica.skip(replica.group_id(), log.entry(at)).await.unwrap();
        assert!(replica.facts().owner, "it goes on");
    }
    log.0.raw(skip_entry(at, "planted", "root"));
    assert_eq!(replica.skips(&log.0.log()[at.0 as usize]), Some(at));
    log.0.tick();
    for replica in [&replica, &other] {
        replica.apply(log.entries(at.0 + 1, log.last())).await.unwrap();
        let facts = replica.facts();
        let skipped = facts.last_skipped.unwrap();
        assert_eq!((facts.skipped, facts.dead_letters), (1, 1));
        assert_eq!((skipped.index, &skipped.reason[..], &skipped.actor[..]), (at, "planted", "root"));
    }
    assert_eq!(hash(&replica).await, hash(&other).await);
}

#[tokio::test]
async fn a_rule_that_does_not_return_is_given_up_and_others_on_its_worker_go_on() {
    let executor = ThreadExecutor::start(1).unwrap();
    let let_go = Arc::new(AtomicBool::new(false));
    let (stuck, other) = (replica(1, &executor, &let_go, BUDGET), replica(2, &executor, &Arc::default(), BUDGET));
    let mut log = Log::new();
    for replica in [&stuck, &other] {
        replica.restored().await.unwrap();
        replica.apply(log.entries(1, log.last())).await.unwrap();
    }
    stuck.role(Role::Leader(Term(1)));
    let before = log.last();
    log.order(WAIT);
    let at = log.last();
    let fault = timeout(WITHIN, stuck.apply(log.entries(before.0 + 1, at))).await.expect("it is noticed").unwrap_err();
    assert!(fault.reason.contains("an order with code 2 has not returned"), "{fault}");
    assert_eq!((stuck.halted().unwrap().index, stuck.facts().owner), (at, false));

    // The one worker serves the other region, and this one's questions.
    log.0.tick();
    let rest = [log.entry(LogIndex(at.0 + 1))].map(|entry| Entry { position: Position { index: at, ..entry.position }, ..entry });
    timeout(WITHIN, other.apply(rest.to_vec())).await.expect("the worker is free").unwrap();
    timeout(WITHIN, stuck.clone().inspect(CutNumber(0))).await.expect("the worker is free");

    // It goes on without the entry. What the one that was left behind does later concerns nobody.
    let recovered = stuck.recovered();
    stuck.restored().await.unwrap();
    stuck.apply(log.entries(1, before)).await.unwrap();
    stuck.skip(stuck.group_id(), log.entry(at)).await.unwrap();
    stuck.apply(log.entries(at.0 + 1, log.last())).await.unwrap();
    let (facts, now) = (stuck.facts(), hash(&stuck).await);
    assert!(facts.owner && facts.skipped == 1);
    let_go.store(true, Ordering::Relaxed);
    timeout(WITHIN, recovered).await.expect("it is told that it has returned");
    assert_eq!((stuck.facts(), hash(&stuck).await), (facts, now));
}

#[tokio::test]
async fn a_rule_that_was_only_slow_is_met_again() {
    let executor = ThreadExecutor::start(1).unwrap();
    let let_go = Arc::new(AtomicBool::new(false));
    let slow = replica(1, &executor, &let_go, BUDGET);
    let mut log = Log::new();
    slow.restored().await.unwrap();
    log.order(WAIT);
    let fault = timeout(WITHIN, slow.apply(log.entries(1, log.last()))).await.expect("it is noticed").unwrap_err();
    assert!(fault.reason.contains("has not returned"), "{fault}");
    let recovered = slow.recovered();
    assert!(timeout(Duration::from_millis(100), slow.recovered()).await.is_err(), "it has not returned");
    let_go.store(true, Ordering::Relaxed);
    timeout(WITHIN, recovered).await.expect("it has returned");
    slow.restored().await.unwrap();
    slow.apply(log.entries(1, log.last())).await.unwrap();
    assert_eq!((slow.facts().skipped, slow.facts().tick.0), (0, 2));
}

#[tokio::test]
async fn whoever_delivers_looks_again_once_the_replica_owns_what_another_one_posted() {
    let executor = ThreadExecutor::start(1).unwrap();
    let replica = replica(1, &executor, &Arc::default(), BUDGET);
    let mut log = Log::new();
    log.0.admit(7, "Ada");
    log.0.tick();
    replica.restored().await.unwrap();
    let mut posted = replica.posted();
    replica.role(Role::Leader(Term(2)));
    replica.apply(log.entries(1, log.last())).await.unwrap();
    posted.borrow_and_update();
    assert_eq!(replica.clone().receivers().await, [], "it leads, and does not own yet");

    let position = Position { term: Term(2), index: log.last().next() };
    replica.apply(vec![Entry { position, payload: Payload::Blank }]).await.unwrap();
    assert!(replica.facts().owner && posted.has_changed().unwrap());
    let [to] = replica.clone().receivers().await[..] else { panic!("one group is to be told") };
    assert_eq!((to, replica.clone().pending(to, 10).await.len()), (GroupId::directory(WorldId(1)), 1));
    assert_eq!(replica.clone().pending(GroupId::vault(WorldId(1), 0), 10).await, []);
}
