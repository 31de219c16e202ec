//! Follows every cell of a region, as an edge would.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use marchland_proto::cluster::regions_client::RegionsClient;
use marchland_proto::cluster::{EdgeToNode, EdgeToRegion, RegionBatch};
use marchland_proto::net::{ClusterClient, ClusterSecurity, TokioTransport, cluster_channel};
use marchland_types::limits::CELL_SIZE_M;
use marchland_types::{CellId, GroupId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::truth::World;
use crate::up::layout::Layout;

/// Follows the region of `group` at the node that owns it: a task that keeps `world` up to date, and ends with an error when it missed
/// anything.
pub(super) async fn follow(
    layout: &Layout,
    group: GroupId,
    owner: u32,
    side_m: f32,
    world: Arc<Mutex<World>>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let config = &layout.nodes[owner as usize - 1].1;
    // A node's own certificate has the role edge.
    let security = ClusterSecurity::load(&config.tls_files())?;
    let channel = cluster_channel(&TokioTransport, &security, &config.listen.grpc);
    let last = (side_m / CELL_SIZE_M).ceil() as i16;
    let cells = (-1..=last).flat_map(|x| (-1..=last).map(move |z| CellId { x, z }.pack())).collect();
    let (send, messages) = mpsc::channel(1);
    let subscribe = EdgeToRegion { group: group.0, reset: true, subscribe: cells, ..EdgeToRegion::default() };
    send.send(EdgeToNode { regions: vec![subscribe] }).await?;
    let mut stream = RegionsClient::over(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
    Ok(tokio::spawn(async move {
        // Kept, so that the stream stays open.
        let _send = send;
        loop {
            let message = stream.message().await.context("observer")?.context("the owner closed the observer's stream")?;
            for batch in message.regions {
                take(&world, &batch)?;
            }
        }
    }))
}

fn take(world: &Mutex<World>, batch: &RegionBatch) -> anyhow::Result<()> {
    if batch.gone.is_some() {
        bail!("the region's owner changed during the measurement");
    }
    // An announcement has no cells and no state.
    if batch.cells.is_empty() {
        return Ok(());
    }
    world.lock().unwrap_or_else(PoisonError::into_inner).take(batch)
}
