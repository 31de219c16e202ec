//! Serves the pages over any listener, with every bound that a stranger could lean on.
//!
//! Connections, size of a request's head, time for it and the life of a connection are limited; a body is never read.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use marchland_proto::net::Listener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::RESPOND_WITHIN;

/// Connections at once. More wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Size of a request's head.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Fields of a request's head.
const FIELDS_MAX: usize = 64;
/// A connection is closed after this time, however busy: one that never reads its answer holds its place no longer.
const CONNECTION_LIFE: Duration = Duration::from_secs(30);
/// Time that answers under way have at shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves `router` until `shutdown` resolves; then answers under way get one second.
pub async fn serve<L>(listener: L, router: Router, shutdown: impl Future<Output = ()>)
where
    L: Listener,
    L::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (closing, closed) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            // Never closed: the semaphore lives as long as this function.
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, closed) = (router.clone(), closed.clone());
                connections.spawn(async move {
                    let _place = place;
                    one(stream, router, closed).await;
                });
            }
            Err(error) => {
                // Out of descriptors, or a connection that died in the queue. Pause, or this loop would spin.
                tracing::warn!(%error, "pages: accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn one<S>(stream: S, router: Router, mut closed: tokio::sync::watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(RESPOND_WITHIN)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(FIELDS_MAX)
        .half_close(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let mut life = pin!(tokio::time::sleep(CONNECTION_LIFE));
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "pages: connection ended");
                }
                return;
            }
            // The second time it is cut off, answer or no answer.
            () = life.as_mut() => if leaving { return } else {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                life.as_mut().reset(tokio::time::Instant::now() + RESPOND_WITHIN);
            },
            _ = closed.changed(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                life.as_mut().reset(tokio::time::Instant::now() + DRAIN);
            }
        }
    }
}
