//! A running cluster, as `up` and the measurements see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use marchland_admin::client::{AdminCluster, AdminEndpoint, cluster_status};
use marchland_proto::net::{ClusterSecurity, TlsFiles, TokioTransport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::up::ready::ReadyFile;

/// Name in the certificates of a development cluster.
const SERVER_NAME: &str = "marchland.cluster";

/// Checks players' TLS against the certificate of a development cluster.
pub fn player_tls(authority: &Path) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let pem = std::fs::read(authority).with_context(|| format!("can not read {}", authority.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.context("not a certificate")?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(config).into(), ServerName::try_from(SERVER_NAME)?))
}

/// Every node of a cluster, through its admin service.
pub struct Cluster {
    nodes: AdminCluster,
}

impl Cluster {
    /// The cluster of a ready file.
    pub fn of(ready: &ReadyFile) -> anyhow::Result<Self> {
        let files = TlsFiles {
            authority: ready.authority.clone(),
            certificate: ready.admin_certificate.clone(),
            key: ready.admin_key.clone(),
        };
        let endpoint = AdminEndpoint {
            addresses: ready.nodes.iter().map(|n| n.grpc.clone()).collect(),
            security: ClusterSecurity::load(&files)?,
            token: ready.admin_token.clone(),
        };
        Ok(Self { nodes: endpoint.connect(&TokioTransport)? })
    }

    /// Its nodes.
    pub fn admin(&self) -> &AdminCluster {
        &self.nodes
    }

    /// Whether every node is ready, and every region has an owner; otherwise what is missing.
    pub async fn ready(&self) -> Result<(), String> {
        let view = cluster_status(&self.nodes).await;
        let mut owned = BTreeMap::new();
        for node in &view.nodes {
            let Some(status) = &node.status else {
                return Err(format!("{}: {}", node.address, node.error.as_deref().unwrap_or("no answer")));
            };
            if !status.ready {
                return Err(format!("node {}: {}", status.node, status.not_ready_because));
            }
            for group in status.groups.iter().filter(|group| group.is_region()) {
                *owned.entry(group.group.clone()).or_insert(false) |= group.owner;
            }
        }
        match owned.iter().find(|(_, owned)| !**owned) {
            Some((group, _)) => Err(format!("{group} has no owner")),
            None if owned.is_empty() => Err("there is no region".into()),
            None => Ok(()),
        }
    }

    /// The cluster in one line.
    pub async fn figures(&self) -> String {
        let view = cluster_status(&self.nodes).await;
        let up = view.nodes.iter().filter(|n| n.status.is_some()).count();
        let mut text = format!("nodes {up}/{}", view.nodes.len());
        let groups: Vec<_> = view.nodes.iter().filter_map(|n| n.status.as_ref()).flat_map(|s| &s.groups).collect();
        let regions: BTreeSet<&str> = groups.iter().filter(|g| g.is_region()).map(|g| g.group.as_str()).collect();
        let owned: Vec<_> = groups.iter().filter(|g| g.owner).collect();
        let (players, entities) = owned.iter().fold((0, 0), |(p, e), g| (p + u64::from(g.sessions), e + u64::from(g.entities)));
        match (&owned[..], regions.len()) {
            ([region], 0 | 1) => text.push_str(&format!(
                " | {} tick {} at {} % owned by {} term {}, {players} players, {entities} entities",
                region.group, region.tick, region.time_rate, region.replica, region.term
            )),
            ([], 0 | 1) => text.push_str(" | the region has no owner"),
            (_, all) => {
                let slowest = owned.iter().map(|g| g.time_rate).min().unwrap_or(0);
                let owners = owned.len();
                text.push_str(&format!(
                    " | {owners} of {all} regions have owners, slowest at {slowest} %, {players} players, {entities} entities"
                ));
            }
        }
        if groups.iter().any(|g| g.diverged) {
            text.push_str(" | A REPLICA DIFFERS");
        }
        text
    }
}
