//! The pump between an outbox and a receiver that loses, repeats, forgets to answer and changes its owner.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use marchland_proto::cluster::{DeliverAnswer, DeliverRequest};
use marchland_proto::codes::Code;
use marchland_proto::net::Role as PeerRole;
use marchland_proto::storage::{ChannelAck, ChannelMessage};
use marchland_raft::{Machine, Role};
use marchland_router::{ChannelPump, Deliver, DeliverError, DirectoryOptions, KeyedOutbox, Outbox, OutboxError, PumpOptions};
use marchland_types::{GroupId, Term};
use proptest::prelude::*;
use support::*;
use tokio::sync::watch;

/// An outbox whose acknowledgements are recorded, or lost, as told.
struct FakeOutbox {
    posted: watch::Sender<u64>,
    channels: Mutex<BTreeMap<GroupId, Vec<ChannelMessage>>>,
    faults: Mutex<Vec<u8>>,
}

impl FakeOutbox {
    fn post(&self, to: GroupId, seqs: impl IntoIterator<Item = u64>) {
        let message = |seq| ChannelMessage { from_group: region(1).0, seq, ..ChannelMessage::default() };
        self.channels.lock().unwrap().entry(to).or_default().extend(seqs.into_iter().map(message));
        self.posted.send_modify(|n| *n += 1);
    }

    fn left(&self) -> usize {
        self.channels.lock().unwrap().values().map(Vec::len).sum()
    }
}

impl Outbox for FakeOutbox {
    fn posted(&self) -> watch::Receiver<u64> {
        self.posted.subscribe()
    }

    async fn receivers(&self) -> Result<Vec<GroupId>, OutboxError> {
        Ok(self.channels.lock().unwrap().iter().filter(|(_, c)| !c.is_empty()).map(|(g, _)| *g).collect())
    }

    async fn pending(&self, to: GroupId, limit: usize) -> Result<Vec<ChannelMessage>, OutboxError> {
        Ok(self.channels.lock().unwrap()[&to].iter().take(limit).cloned().collect())
    }

    async fn acked(&self, ack: ChannelAck) -> Result<(), OutboxError> {
        let (to, seq) = (GroupId(ack.from_group), ack.seq);
        match self.faults.lock().unwrap().pop().unwrap_or(0) % 4 {
            0 | 1 => self.channels.lock().unwrap().get_mut(&to).unwrap().retain(|m| m.seq > seq),
            // Proposed, and lost with the leader.
            2 => {}
            _ => return Err(OutboxError("not the leader".into())),
        }
        Ok(())
    }
}

/// A receiver that takes at last + 1 only, and whose answers go wrong as told.
#[derive(Default)]
struct FakeReceiver {
    taken: Mutex<BTreeMap<GroupId, Vec<u64>>>,
    faults: Mutex<Vec<u8>>,
}

impl Deliver for FakeReceiver {
    async fn deliver(&self, request: DeliverRequest) -> Result<DeliverAnswer, DeliverError> {
        let to = GroupId(request.to_group);
        let fault = self.faults.lock().unwrap().pop().unwrap_or(0) % 6;
        tokio::task::yield_now().await;
        let failed = |reason: &str| Err(DeliverError { to, reason: reason.into() });
        if fault == 1 {
            return failed("not sent");
        }
        let mut taken = self.taken.lock().unwrap();
        let taken = taken.entry(to).or_default();
        let mut code = Code::Ok;
        for (at, message) in request.messages.iter().enumerate() {
            let last = taken.last().copied().unwrap_or(0);
            if fault == 2 && at == request.messages.len() / 2 {
                code = Code::Unavailable;
                break;
            }
            if message.seq == last + 1 {
                taken.push(message.seq);
            } else if message.seq > last + 1 {
                code = Code::Gap;
                break;
            }
        }
        let answer =
            DeliverAnswer { code: code as u32, taken_seq: taken.last().copied().unwrap_or(0), ..DeliverAnswer::default() };
        match fault {
            3 => failed("taken, but the answer was lost"),
            4 => Ok(DeliverAnswer { code: Code::Unavailable as u32, ..DeliverAnswer::default() }),
            _ => Ok(answer),
        }
    }
}

struct Pumping {
    outbox: Arc<FakeOutbox>,
    receiver: Arc<FakeReceiver>,
    role: watch::Sender<Role>,
    task: tokio::task::JoinHandle<()>,
}

impl Pumping {
    fn start(options: PumpOptions, role: Role, outbox_faults: Vec<u8>, receiver_faults: Vec<u8>) -> Self {
        let faults = Mutex::new(outbox_faults);
        let outbox = Arc::new(FakeOutbox { posted: watch::Sender::new(0), channels: Mutex::default(), faults });
        let receiver = Arc::new(FakeReceiver { taken: Mutex::default(), faults: Mutex::new(receiver_faults) });
        let role = watch::Sender::new(role);
        let pump = ChannelPump::new(region(1), outbox.clone(), receiver.clone(), options);
        let roles = role.subscribe();
        let task = tokio::spawn(async move { pump.run(roles).await });
        Self { outbox, receiver, role, task }
    }

    fn taken(&self, to: GroupId) -> Vec<u64> {
        self.receiver.taken.lock().unwrap().get(&to).cloned().unwrap_or_default()
    }

    async fn drained(&self) {
        for _ in 0..5_000 {
            if self.outbox.left() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} messages are never delivered", self.outbox.left());
    }
}

const LEADER: Role = Role::Leader(Term(1));
const FOLLOWER: Role = Role::Follower { term: Term(2), leader: None };

fn quick() -> PumpOptions {
    PumpOptions { batch_messages: 3, destinations_at_once: 2, pause_ms: 1, pause_max_ms: 2, ..PumpOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is lost, repeated or answered wrongly, and however leadership comes and goes: each message is taken once,
    /// in order, and the outbox becomes empty.
    #[test]
    fn every_message_is_taken_once_and_in_order(
        posts in proptest::collection::vec((2u32..6, 1u64..9), 1..12),
        outbox_faults in proptest::collection::vec(any::<u8>(), 0..20),
        receiver_faults in proptest::collection::vec(any::<u8>(), 0..30),
        flips in proptest::collection::vec(0u64..3, 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let pumping = Pumping::start(quick(), LEADER, outbox_faults, receiver_faults);
            let mut sent = BTreeMap::<GroupId, u64>::new();
            let mut flips = flips.into_iter();
            for (to, count) in posts {
                let last = sent.entry(region(to)).or_default();
                pumping.outbox.post(region(to), *last + 1..=*last + count);
                *last += count;
                if let Some(pause_ms) = flips.next() {
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pumping.role.send_replace(FOLLOWER);
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pumping.role.send_replace(LEADER);
                }
            }
            pumping.drained().await;
            for (to, last) in sent {
                assert_eq!(pumping.taken(to), (1..=last).collect::<Vec<_>>());
            }
            pumping.role.send_replace(Role::Stopped);
            pumping.task.await.unwrap();
        });
    }
}

#[tokio::test]
async fn nothing_is_delivered_by_a_follower() {
    let pumping = Pumping::start(quick(), FOLLOWER, vec![], vec![]);
    pumping.outbox.post(region(2), 1..=5);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(pumping.taken(region(2)).is_empty());
    pumping.role.send_replace(LEADER);
    pumping.drained().await;
    pumping.role.send_replace(FOLLOWER);
    tokio::time::sleep(Duration::from_millis(5)).await;
    pumping.outbox.post(region(2), 6..=7);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(pumping.taken(region(2)), [1, 2, 3, 4, 5]);
    drop(pumping.role);
    pumping.task.await.unwrap();
}

#[tokio::test]
async fn what_another_leader_delivered_is_only_acknowledged() {
    let pumping = Pumping::start(quick(), FOLLOWER, vec![], vec![]);
    pumping.receiver.taken.lock().unwrap().insert(region(2), (1..=20).collect());
    pumping.outbox.post(region(2), 5..=22);
    pumping.role.send_replace(LEADER);
    pumping.drained().await;
    assert_eq!(pumping.taken(region(2)), (1..=22).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_receiver_that_forgot_is_waited_for_and_not_fed_with_gaps() {
    let pumping = Pumping::start(quick(), LEADER, vec![], vec![]);
    pumping.outbox.post(region(2), 5..=6);
    pumping.outbox.post(region(3), 1..=2);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!((pumping.taken(region(2)), pumping.taken(region(3))), (vec![], vec![1, 2]), "others are served");
    assert_eq!(pumping.outbox.left(), 2);
}

/// A receiver that answers when it is told to, and what it was sent until then.
struct Withholding {
    sent: Mutex<Vec<Vec<u64>>>,
    answers: tokio::sync::Semaphore,
}

impl Deliver for Withholding {
    async fn deliver(&self, request: DeliverRequest) -> Result<DeliverAnswer, DeliverError> {
        let seqs: Vec<u64> = request.messages.iter().map(|message| message.seq).collect();
        let taken_seq = seqs[seqs.len() - 1];
        self.sent.lock().unwrap().push(seqs);
        self.answers.acquire().await.unwrap().forget();
        Ok(DeliverAnswer { code: Code::Ok as u32, taken_seq, ..DeliverAnswer::default() })
    }
}

#[tokio::test]
async fn what_is_posted_during_a_delivery_does_not_wait_for_its_answer() {
    let outbox = Arc::new(FakeOutbox { posted: watch::Sender::new(0), channels: Mutex::default(), faults: Mutex::default() });
    let receiver = Arc::new(Withholding { sent: Mutex::default(), answers: tokio::sync::Semaphore::new(0) });
    let role = watch::Sender::new(LEADER);
    let options = PumpOptions { batch_messages: 64, ..quick() };
    let pump = ChannelPump::new(region(1), outbox.clone(), receiver.clone(), options);
    let roles = role.subscribe();
    let task = tokio::spawn(async move { pump.run(roles).await });
    // Nothing here waits for time.
    let settled = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    for seq in 1..=4 {
        outbox.post(region(2), [seq]);
        settled().await;
    }
    assert_eq!(*receiver.sent.lock().unwrap(), [vec![1], vec![1, 2]], "each has all that may be missing; two and no more");
    receiver.answers.add_permits(1);
    settled().await;
    let sent = receiver.sent.lock().unwrap().clone();
    assert_eq!(sent[2..], [vec![2, 3, 4]], "the first one was taken");
    receiver.answers.add_permits(2);
    settled().await;
    assert_eq!((outbox.left(), receiver.sent.lock().unwrap().len()), (0, 3));
    role.send_replace(Role::Stopped);
    task.await.unwrap();
}

/// The directory's own channels: admits reach the region, acknowledgements trim the directory.
#[tokio::test]
async fn a_directory_delivers_its_admits() {
    let rig = Rig::begun(DirectoryOptions { order_ms: 60, busy_ms: 20, retry_ms: 1, ..DirectoryOptions::default() }).await;
    let receiver = Arc::new(FakeReceiver { taken: Mutex::default(), faults: Mutex::new(vec![3, 1, 4, 3]) });
    let outbox = Arc::new(KeyedOutbox::new(rig.service.clone(), rig.machine.posted()));
    let pump = ChannelPump::new(directory_group(), outbox, receiver.clone(), quick());
    let roles = rig.machine.roles();
    let task = tokio::spawn(async move { pump.run(roles).await });
    let edge = peer(9, &[PeerRole::Edge]);
    for request in 1..=10 {
        // A new leader's proposal is lost, or heard of by nobody; the acknowledgement comes again.
        rig.group.then([Outcome::CommitUnheard, Outcome::Lose]);
        let reply = rig.service.sign_in(&edge, sign_in_request("anna", "Ann", request)).await;
        assert_eq!(reply.answer.unwrap().epoch, request);
    }
    for _ in 0..2_000 {
        let channel = rig.service.view().records().channel(region(1)).await.unwrap().unwrap();
        if (channel.posted_seq, channel.acked_seq) == (10, 10) {
            assert_eq!(receiver.taken.lock().unwrap()[&region(1)], (1..=10).collect::<Vec<_>>());
            rig.machine.role(Role::Stopped);
            task.await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("admits are never acknowledged");
}
