//! One multiplexed connection to a peer: requests of all groups go out in batches over one stream, answers come back over it.
//!
//! A link connects when it is first used. While the peer can not be reached, requests fail at once instead of waiting: raft
//! must not take silence for a vote. Requests keep the order in which they were handed over; answers find theirs by number.
//! The queue is bounded, and so are the requests that wait for an answer.
//!
//! A request that may wait does so for the next append of its group, and then is not sent at all: whoever takes the append
//! has heard all that the other one had to say. See [`Haste`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::raft_transport_client::RaftTransportClient;
use marchland_proto::cluster::{RaftAppendAnswer, RaftBatch, RaftEnvelope, RaftError};
use marchland_proto::net::{CONNECT_TIMEOUT, ClusterClient, ClusterSecurity, Transport, cluster_channel};
use marchland_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::options::AddressBook;
use crate::wire::{self, Refusal};

/// Envelopes that go into one message at most.
const BATCH_ENVELOPES: usize = 512;
/// Bytes after which a message is closed. With the largest append it stays below the cluster's limit.
const BATCH_BYTES: usize = 1024 * 1024;
/// First and longest pause after a connection failed.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// How long a request waits that may: a little longer than the time between two ticks.
const HOLD: Duration = Duration::from_millis(60);

/// Makes channels: transport and security without their types.
pub(crate) type Connector = Arc<dyn Fn(&str) -> Channel + Send + Sync>;

pub(crate) fn connector<T: Transport>(transport: &T, security: &ClusterSecurity) -> Connector {
    let (transport, security) = (transport.clone(), security.clone());
    Arc::new(move |address| cluster_channel(&transport, &security, address))
}

/// Which of a peer's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Append,
    Control,
}

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Nothing was sent, or the connection broke before the answer came.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer refused.
    #[error("refused with code {}: {}", .0.code, .0.reason)]
    Refused(RaftError),
}

/// Whether a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    Now,
    /// An append without entries to a follower that has all the entries before it: it only says how far they are committed, which the
    /// next append says as well. For a group that ticks this halves the messages.
    MayWait,
}

type Answer = oneshot::Sender<Result<Body, LinkError>>;

struct Request {
    group: GroupId,
    body: Body,
    haste: Haste,
    answer: Answer,
}

/// The sending end.
#[derive(Clone)]
pub(crate) struct Link(mpsc::Sender<Request>);

impl Link {
    /// Hands a request over, in order with those before it, and waits for the answer.
    pub(crate) async fn call(&self, group: GroupId, body: Body, haste: Haste, deadline: Duration) -> Result<Body, LinkError> {
        let (answer, wait) = oneshot::channel();
        let exchange = async {
            let request = Request { group, body, haste, answer };
            self.0.send(request).await.map_err(|_| LinkError::Unreachable("link is closed".into()))?;
            wait.await.unwrap_or_else(|_| Err(LinkError::Unreachable("connection broke".into())))
        };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(LinkError::Timeout(deadline)))
    }
}

/// Both ends of a link, before it runs.
pub(crate) struct Endpoint {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) lane: Lane,
    pub(crate) queue: usize,
    pub(crate) addresses: Arc<dyn AddressBook>,
    pub(crate) connector: Connector,
}

/// Keeps one channel to a node while its address stays the same.
pub(crate) struct ChannelCell {
    node: NodeId,
    addresses: Arc<dyn AddressBook>,
    connector: Connector,
    current: Option<(String, Channel)>,
}

impl ChannelCell {
    pub(crate) fn new(node: NodeId, addresses: Arc<dyn AddressBook>, connector: Connector) -> Self {
        Self { node, addresses, connector, current: None }
    }

    pub(crate) fn channel(&mut self) -> Result<Channel, String> {
        let address = self.addresses.address(self.node).ok_or_else(|| format!("address of node {} is unknown", self.node))?;
        match &self.current {
            Some((known, channel)) if *known == address => Ok(channel.clone()),
            _ => {
                let channel = (self.connector)(&address);
                self.current = Some((address, channel.clone()));
                Ok(channel)
            }
        }
    }
}

impl Endpoint {
    /// Starts the link. It ends when every [`Link`] is dropped, or with the task.
    pub(crate) fn start(self) -> (Link, tokio::task::AbortHandle) {
        let (sender, receiver) = mpsc::channel(self.queue);
        let task = tokio::spawn(self.run(receiver));
        (Link(sender), task.abort_handle())
    }

    async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut cell = ChannelCell::new(self.to.node(), self.addresses.clone(), self.connector.clone());
        let mut pause = PAUSE;
        let mut first = None;
        loop {
            if first.is_none() {
                first = requests.recv().await;
            }
            let Some(request) = first.take() else { return };
            let why = match self.open(&mut cell).await {
                Ok((out, answers)) => {
                    pause = PAUSE;
                    let why = self.pump(&mut requests, request, out, answers).await;
                    let Some(why) = why else { return };
                    why
                }
                Err(why) => {
                    fail(request, &why);
                    why
                }
            };
            tracing::debug!(from = %self.from, to = %self.to, lane = ?self.lane, %why, "raft link down");
            // Whoever asks while there is no connection hears so at once.
            let until = tokio::time::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
            tokio::pin!(until);
            loop {
                tokio::select! {
                    biased;
                    () = &mut until => break,
                    request = requests.recv() => match request {
                        Some(request) => fail(request, &why),
                        None => return,
                    },
                }
            }
        }
    }

    async fn open(&self, cell: &mut ChannelCell) -> Result<(mpsc::Sender<RaftBatch>, Streaming<RaftBatch>), String> {
        let mut client = RaftTransportClient::over(cell.channel()?);
        let (out, batches) = mpsc::channel(1);
        let batches = ReceiverStream::new(batches);
        let open = async {
            match self.lane {
                Lane::Append => client.append(batches).await,
                Lane::Control => client.control(batches).await,
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
            Ok(Ok(answers)) => Ok((out, answers.into_inner())),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err(format!("no stream within {CONNECT_TIMEOUT:?}")),
        }
    }

    /// Runs until the stream breaks (with the reason), or until nobody is left to send.
    async fn pump(
        &self,
        requests: &mut mpsc::Receiver<Request>,
        first: Request,
        out: mpsc::Sender<RaftBatch>,
        mut answers: Streaming<RaftBatch>,
    ) -> Option<String> {
        let mut queue = vec![first];
        let mut waiting = Waiting { next: 1, answers: BTreeMap::new(), limit: self.queue * 2 };
        let mut held_since = None;
        loop {
            let hurries = queue.iter().any(|request| request.haste == Haste::Now);
            let until = match queue.is_empty() || hurries {
                true => held_since.take(),
                false => Some(*held_since.get_or_insert_with(Instant::now) + HOLD),
            };
            let is_held = held_since.is_some() && until.is_some_and(|until| Instant::now() < until);
            tokio::select! {
                biased;
                batch = answers.message() => match batch {
                    Ok(Some(batch)) => waiting.answer(batch),
                    Ok(None) => return Some("peer ended the stream".into()),
                    Err(status) => return Some(status.to_string()),
                },
                permit = out.reserve(), if !queue.is_empty() && !is_held => match permit {
                    Ok(permit) => {
                        held_since = None;
                        let batch = self.batch(&mut queue, &mut waiting);
                        if !batch.envelopes.is_empty() {
                            permit.send(batch);
                        }
                    }
                    Err(_) => return Some("stream is closed".into()),
                },
                // What is there comes at once, so that it goes out as one message.
                count = requests.recv_many(&mut queue, BATCH_ENVELOPES), if (queue.is_empty() || is_held) && waiting.has_room() => {
                    if count == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if is_held => {}
            }
        }
    }

    fn batch(&self, queue: &mut Vec<Request>, waiting: &mut Waiting) -> RaftBatch {
        let mut size = 0;
        let count = queue
            .iter()
            .take_while(|request| {
                let first = size == 0;
                size += wire::size_of(&request.body);
                first || size <= BATCH_BYTES
            })
            .count();
        // Whoever gave up waiting while it stood in the queue has asked again.
        let (requests, mut riders) = part_riders(queue.drain(..count).filter(|request| !request.answer.is_closed()));
        let envelopes = requests
            .into_iter()
            .map(|request| {
                let riders = riders.remove(&request.group).unwrap_or_default();
                waiting.enter(request, riders)
            })
            .collect();
        RaftBatch { from: self.from.0, to: self.to.0, envelopes }
    }
}

/// Takes out what need not be sent, because an append of the same group stands behind it.
fn part_riders(requests: impl DoubleEndedIterator<Item = Request>) -> (VecDeque<Request>, BTreeMap<GroupId, Vec<Answer>>) {
    let mut riders: BTreeMap<GroupId, Vec<Answer>> = BTreeMap::new();
    let mut kept = VecDeque::new();
    let mut appended = BTreeSet::new();
    for request in requests.rev() {
        match request.haste {
            Haste::MayWait if appended.contains(&request.group) => riders.entry(request.group).or_default().push(request.answer),
            Haste::MayWait | Haste::Now => {
                if matches!(request.body, Body::Append(_)) {
                    appended.insert(request.group);
                }
                kept.push_front(request);
            }
        }
    }
    (kept, riders)
}

fn fail(request: Request, why: &str) {
    // The caller may have given up.
    let _ = request.answer.send(Err(LinkError::Unreachable(why.to_owned())));
}

/// Requests that were sent and not answered.
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, (Answer, Vec<Answer>)>,
    limit: usize,
}

/// What an append's answer says to those that rode with it: they ended before it began, so a success of any kind is theirs, and a
/// follower that obeys another leader would have told them the same.
fn to_rider(result: &Result<Body, LinkError>) -> Result<Body, LinkError> {
    match result {
        Ok(Body::AppendAnswer(answer)) if matches!(answer.outcome, 1 | 2) => {
            Ok(Body::AppendAnswer(RaftAppendAnswer { outcome: 1, matched: None, vote: None, ..*answer }))
        }
        Ok(Body::AppendAnswer(answer)) if answer.outcome == 4 => Ok(Body::AppendAnswer(*answer)),
        Ok(_) => Err(LinkError::Unreachable("the append behind it found a conflict".into())),
        Err(error) => Err(error.clone()),
    }
}

impl Waiting {
    fn enter(&mut self, request: Request, riders: Vec<Answer>) -> RaftEnvelope {
        let number = self.next;
        self.next += 1;
        self.answers.insert(number, (request.answer, riders));
        RaftEnvelope { group: request.group.0, request: number, body: Some(request.body) }
    }

    fn answer(&mut self, batch: RaftBatch) {
        for envelope in batch.envelopes {
            // Unknown numbers are answers that nobody waits for any more.
            let Some((answer, riders)) = self.answers.remove(&envelope.request) else { continue };
            let result = match envelope.body {
                Some(Body::Error(error)) => Err(LinkError::Refused(error)),
                Some(body) => Ok(body),
                None => Err(LinkError::Refused(Refusal::Malformed.with("answer without a body"))),
            };
            for rider in riders {
                let _ = rider.send(to_rider(&result));
            }
            let _ = answer.send(result);
        }
    }

    fn has_room(&mut self) -> bool {
        if self.answers.len() >= self.limit {
            self.answers.retain(|_, (answer, _)| !answer.is_closed());
        }
        self.answers.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marchland_proto::cluster::{RaftAppend, RaftVote};

    fn request(group: u64, body: Body, haste: Haste) -> (Request, oneshot::Receiver<Result<Body, LinkError>>) {
        let (answer, wait) = oneshot::channel();
        (Request { group: GroupId(group), body, haste, answer }, wait)
    }

    fn append() -> Body {
        Body::Append(RaftAppend::default())
    }

    #[test]
    fn what_may_wait_rides_with_an_append_of_its_group_behind_it_and_with_nothing_else() {
        let vote = Body::Vote(RaftVote::default());
        let (requests, _waits): (Vec<_>, Vec<_>) = [
            request(1, append(), Haste::MayWait),
            request(2, append(), Haste::MayWait),
            request(1, vote, Haste::Now),
            request(1, append(), Haste::MayWait),
            request(1, append(), Haste::Now),
            request(1, append(), Haste::MayWait),
        ]
        .into_iter()
        .unzip();
        let (kept, riders) = part_riders(requests.into_iter());
        let kept: Vec<(u64, Haste)> = kept.iter().map(|r| (r.group.0, r.haste)).collect();
        // The last one of group 1 stands behind everything, so it is sent, and the ones before it ride with some append.
        assert_eq!(kept, [(2, Haste::MayWait), (1, Haste::Now), (1, Haste::Now), (1, Haste::MayWait)]);
        assert_eq!(riders.into_iter().map(|(group, riders)| (group.0, riders.len())).collect::<Vec<_>>(), [(1, 2)]);
    }

    #[test]
    fn a_rider_hears_what_it_would_have_heard() {
        let answer = |outcome| Ok(Body::AppendAnswer(RaftAppendAnswer { outcome, ..RaftAppendAnswer::default() }));
        let outcome = |result| match result {
            Ok(Body::AppendAnswer(answer)) => Some(answer.outcome),
            _ => None,
        };
        let heard = [1, 2, 3, 4].map(|told| outcome(to_rider(&answer(told))));
        assert_eq!(heard, [Some(1), Some(1), None, Some(4)]);
        assert!(to_rider(&Err(LinkError::Unreachable("gone".into()))).is_err());
    }
}
