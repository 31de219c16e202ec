//! One multiplexed connection to a peer: requests of all groups go out in batches over one stream, answers come back over it.
//!
//! A link connects when it is first used. While the peer can not be reached, requests fail at once instead of waiting: raft
//! must not take silence for a vote. Requests keep the order in which they were handed over; answers find theirs by number.
//! The queue is bounded, and so are the requests that wait for an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use marchland_proto::cluster::raft_envelope::Body;
use marchland_proto::cluster::raft_transport_client::RaftTransportClient;
use marchland_proto::cluster::{RaftBatch, RaftEnvelope, RaftError};
use marchland_proto::net::{CONNECT_TIMEOUT, ClusterClient, ClusterSecurity, Transport, cluster_channel};
use marchland_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::options::AddressBook;
use crate::wire;

/// Envelopes that go into one message at most.
const BATCH_ENVELOPES: usize = 512;
/// Bytes after which a message is closed. With the largest append it stays below the cluster's limit.
const BATCH_BYTES: usize = 1024 * 1024;
/// First and longest pause after a connection failed.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);

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

struct Request {
    group: GroupId,
    body: Body,
    answer: oneshot::Sender<Result<Body, LinkError>>,
}

/// The sending end.
#[derive(Clone)]
pub(crate) struct Link(mpsc::Sender<Request>);

impl Link {
    /// Hands a request over, in order with those before it, and waits for the answer.
    pub(crate) async fn call(&self, group: GroupId, body: Body, deadline: Duration) -> Result<Body, LinkError> {
        let (answer, wait) = oneshot::channel();
        let exchange = async {
            let request = Request { group, body, answer };
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
        loop {
            tokio::select! {
                biased;
                batch = answers.message() => match batch {
                    Ok(Some(batch)) => waiting.answer(batch),
                    Ok(None) => return Some("peer ended the stream".into()),
                    Err(status) => return Some(status.to_string()),
                },
                permit = out.reserve(), if !queue.is_empty() => match permit {
                    Ok(permit) => {
                        let batch = self.batch(&mut queue, &mut waiting);
                        if !batch.envelopes.is_empty() {
                            permit.send(batch);
                        }
                    }
                    Err(_) => return Some("stream is closed".into()),
                },
                // What is there comes at once, so that it goes out as one message.
                count = requests.recv_many(&mut queue, BATCH_ENVELOPES), if queue.is_empty() && waiting.has_room() => {
                    if count == 0 {
                        return None;
                    }
                }
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
        let envelopes = queue
            .drain(..count)
            // Whoever gave up waiting while it stood in the queue has asked again.
            .filter(|request| !request.answer.is_closed())
            .map(|request| waiting.enter(request))
            .collect();
        RaftBatch { from: self.from.0, to: self.to.0, envelopes }
    }
}

fn fail(request: Request, why: &str) {
    // The caller may have given up.
    let _ = request.answer.send(Err(LinkError::Unreachable(why.to_owned())));
}

/// Requests that were sent and not answered.
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<Result<Body, LinkError>>>,
    limit: usize,
}

impl Waiting {
    fn enter(&mut self, request: Request) -> RaftEnvelope {
        let number = self.next;
        self.next += 1;
        self.answers.insert(number, request.answer);
        RaftEnvelope { group: request.group.0, request: number, body: Some(request.body) }
    }

    fn answer(&mut self, batch: RaftBatch) {
        for envelope in batch.envelopes {
            // Unknown numbers are answers that nobody waits for any more.
            let Some(answer) = self.answers.remove(&envelope.request) else { continue };
            let result = match envelope.body {
                Some(Body::Error(error)) => Err(LinkError::Refused(error)),
                Some(body) => Ok(body),
                None => Err(LinkError::Refused(wire::Refusal::Malformed.with("answer without a body"))),
            };
            let _ = answer.send(result);
        }
    }

    fn has_room(&mut self) -> bool {
        if self.answers.len() >= self.limit {
            self.answers.retain(|_, answer| !answer.is_closed());
        }
        self.answers.len() < self.limit
    }
}
