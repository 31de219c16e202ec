//! Requests to stop.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// How a node is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// SIGTERM: the others go on. What this node leads is handed over first.
    HandOver,
    /// Ctrl-C, SIGINT: everything stops, so there is nobody to hand anything to.
    AtOnce,
}

/// Resolves at the first request for a node to stop. From the call on, none ends the process by itself.
pub fn node_stop_requested() -> io::Result<impl Future<Output = StopKind>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => StopKind::AtOnce,
            _ = terminate.recv() => StopKind::HandOver,
        }
    })
}

/// Resolves at the first Ctrl-C or SIGTERM. From the call on, neither ends the process by itself.
pub fn stop_requested() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
