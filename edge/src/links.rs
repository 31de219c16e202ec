//! The stream to each node: one per worker and node, made again whenever it broke.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use marchland_proto::cluster::EdgeToNode;
use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::net::{CALL_TIMEOUT, ClusterClient, Transport};
use marchland_types::NodeId;
use marchland_types::seam::{Clock, Entropy};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, unconstrained};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::worker::Worker;

/// Messages to a node that wait for its connection. When they are that many, what follows is gathered into the next one.
const WAITING_MAX: usize = 16;
/// Pause after the first failure, doubled up to the greatest.
const PAUSE: Duration = Duration::from_millis(20);
/// Greatest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A node that this worker speaks to.
pub(crate) struct Link {
    /// Present while the stream is up.
    pub(crate) up: Option<mpsc::Sender<EdgeToNode>>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a stream to `node` up.
pub(crate) fn open<T: Transport, C: Clock, E: Entropy>(worker: &Rc<Worker<T, C, E>>, node: NodeId, channel: Channel) -> Link {
    Link { up: None, task: tokio::task::spawn_local(run(worker.clone(), node, channel)).abort_handle() }
}

async fn run<T: Transport, C: Clock, E: Entropy>(worker: Rc<Worker<T, C, E>>, node: NodeId, channel: Channel) {
    let mut pause = PAUSE;
    loop {
        let (up, waiting) = mpsc::channel(WAITING_MAX);
        // A first message, for a node that looks at it before it answers.
        up.try_send(EdgeToNode::default()).expect("the channel is empty");
        let mut client = RegionsClient::over(channel.clone());
        match tokio::time::timeout(CALL_TIMEOUT, client.attach(ReceiverStream::new(waiting))).await {
            Ok(Ok(response)) => {
                let mut inbound = response.into_inner();
                worker.link_up(node, up);
                let ended = loop {
                    match inbound.message().await {
                        Ok(Some(message)) => {
                            pause = PAUSE;
                            // One message is one pass over all clients' sockets. Tokio's budget for a task would end it after
                            // 128 of them: every later socket would seem to take nothing.
                            let mut message = Some(message);
                            let pass = poll_fn(|_| {
                                message.take().into_iter().for_each(|message| worker.handle_node(node, message));
                                Poll::Ready(())
                            });
                            unconstrained(pass).await;
                            // A node that sends without end must not keep the loop from its clients.
                            tokio::task::consume_budget().await;
                        }
                        Ok(None) => break "ended by the node".to_owned(),
                        Err(status) => break status.to_string(),
                    }
                };
                tracing::info!(node = node.0, %ended, "stream to node lost");
            }
            Ok(Err(status)) => tracing::debug!(node = node.0, %status, "no stream to node"),
            Err(_) => tracing::debug!(node = node.0, "no stream to node in time"),
        }
        worker.link_down(node);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
