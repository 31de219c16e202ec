//! Mutual TLS within the cluster, and the development authority that issues its certificates.
//!
//! Both ends present a certificate of the cluster's authority; both read the peer's [`PeerIdentity`] out of it and refuse
//! another cluster's. The simulated form carries the same identities over plain streams, so that the code above sees no
//! difference; no configuration of the released binary can select it.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{CONNECT_TIMEOUT, ClusterStream, PeerIdentity};

/// The name that every node's certificate carries for the TLS handshake; who it is stands in the URI.
const SERVER_NAME: &str = "marchland.cluster";
/// Longest identity that is read from a simulated stream.
const IDENTITY_MAX_BYTES: usize = 1024;

/// Why a stream could not be secured, or a certificate not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        error: String,
    },
    /// A certificate or key is not usable.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The handshake failed: no certificate, one of another authority, or no TLS at all.
    #[error("handshake: {0}")]
    Handshake(String),
    /// The peer belongs to another cluster.
    #[error("peer is of cluster {found:?}, this is {expected:?}")]
    OtherCluster {
        /// Its cluster.
        found: String,
        /// Ours.
        expected: String,
    },
    /// Nothing came within the time.
    #[error("handshake took longer than {} ms", CONNECT_TIMEOUT.as_millis())]
    Timeout,
}

/// Where a node finds its certificates. All PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the cluster's authority.
    pub authority: PathBuf,
    /// The node's own certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How cluster streams are secured. Cheap to clone.
#[derive(Clone)]
pub struct ClusterSecurity {
    identity: PeerIdentity,
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    Mutual { connector: TlsConnector, acceptor: TlsAcceptor },
    Simulated,
}

impl ClusterSecurity {
    /// Mutual TLS with the certificates in these files.
    pub fn load(files: &TlsFiles) -> Result<Self, SecurityError> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|e| SecurityError::File { path: path.clone(), error: e.to_string() });
        Self::from_pem(&read(&files.authority)?, &read(&files.certificate)?, &read(&files.key)?)
    }

    /// Mutual TLS with certificates in PEM.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, SecurityError> {
        let bad = |what: &str, e: &dyn std::fmt::Display| SecurityError::Certificate(format!("{what}: {e}"));
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(authority) {
            roots.add(cert.map_err(|e| bad("authority", &e))?).map_err(|e| bad("authority", &e))?;
        }
        let roots = Arc::new(roots);
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|e| bad("certificate", &e))?;
        let first = chain.first().ok_or_else(|| SecurityError::Certificate("no certificate in the file".into()))?;
        let identity = identity_of(first)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("key", &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| bad("provider", &e))?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| bad("key", &e))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|e| bad("authority", &e))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad("provider", &e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| bad("key", &e))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = client;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { identity, mode: Mode::Mutual { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() } })
    }

    /// Identities announced over plain streams: for the simulator and for tests.
    #[must_use]
    pub fn simulated(identity: PeerIdentity) -> Self {
        Self { identity, mode: Mode::Simulated }
    }

    /// Who this process is.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// Secures a stream that this process opened.
    pub async fn connect<S>(&self, stream: S) -> Result<ClusterStream<S>, SecurityError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let work = async {
            match &self.mode {
                Mode::Mutual { connector, .. } => {
                    let name = ServerName::try_from(SERVER_NAME).map_err(|e| SecurityError::Certificate(e.to_string()))?;
                    let stream = connector.connect(name, stream).await.map_err(|e| SecurityError::Handshake(e.to_string()))?;
                    let peer = self.checked(stream.get_ref().1.peer_certificates())?;
                    Ok(ClusterStream::tls(stream.into(), peer))
                }
                Mode::Simulated => {
                    let mut stream = stream;
                    announce(&mut stream, &self.identity).await?;
                    let peer = hear(&mut stream).await?;
                    Ok(ClusterStream::plain(stream, self.same_cluster(peer)?))
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, work).await.unwrap_or(Err(SecurityError::Timeout))
    }

    /// Secures a stream that this process accepted.
    pub async fn accept<S>(&self, stream: S) -> Result<ClusterStream<S>, SecurityError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let work = async {
            match &self.mode {
                Mode::Mutual { acceptor, .. } => {
                    let stream = acceptor.accept(stream).await.map_err(|e| SecurityError::Handshake(e.to_string()))?;
                    let peer = self.checked(stream.get_ref().1.peer_certificates())?;
                    Ok(ClusterStream::tls(stream.into(), peer))
                }
                Mode::Simulated => {
                    let mut stream = stream;
                    let peer = hear(&mut stream).await?;
                    let peer = self.same_cluster(peer)?;
                    announce(&mut stream, &self.identity).await?;
                    Ok(ClusterStream::plain(stream, peer))
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, work).await.unwrap_or(Err(SecurityError::Timeout))
    }

    fn checked(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<PeerIdentity, SecurityError> {
        let first =
            chain.and_then(|c| c.first()).ok_or_else(|| SecurityError::Handshake("peer presented no certificate".into()))?;
        self.same_cluster(identity_of(first)?)
    }

    fn same_cluster(&self, peer: PeerIdentity) -> Result<PeerIdentity, SecurityError> {
        if peer.cluster == self.identity.cluster {
            Ok(peer)
        } else {
            Err(SecurityError::OtherCluster { found: peer.cluster, expected: self.identity.cluster.clone() })
        }
    }
}

fn identity_of(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, SecurityError> {
    let parsed =
        webpki::EndEntityCert::try_from(certificate).map_err(|e| SecurityError::Certificate(format!("unreadable: {e}")))?;
    let uri = parsed
        .valid_uri_names()
        .find(|uri| uri.starts_with("marchland://"))
        .ok_or_else(|| SecurityError::Certificate("names no marchland:// identity".into()))?;
    uri.parse().map_err(|e| SecurityError::Certificate(format!("{e}")))
}

async fn announce<S: AsyncWrite + Unpin>(stream: &mut S, identity: &PeerIdentity) -> Result<(), SecurityError> {
    let text = identity.to_string();
    let mut bytes = (text.len() as u16).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let io = |e: std::io::Error| SecurityError::Handshake(e.to_string());
    stream.write_all(&bytes).await.map_err(io)?;
    stream.flush().await.map_err(io)
}

async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Result<PeerIdentity, SecurityError> {
    let io = |e: std::io::Error| SecurityError::Handshake(e.to_string());
    let size = usize::from(stream.read_u16_le().await.map_err(io)?);
    if size > IDENTITY_MAX_BYTES {
        return Err(SecurityError::Handshake(format!("identity of {size} bytes")));
    }
    let mut text = vec![0; size];
    stream.read_exact(&mut text).await.map_err(io)?;
    let text = std::str::from_utf8(&text).map_err(|e| SecurityError::Handshake(e.to_string()))?;
    text.parse().map_err(|e| SecurityError::Handshake(format!("{e}")))
}

/// An authority that signs certificates of one cluster, in PEM.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its certificate, which every node trusts.
    pub certificate_pem: String,
    /// Its key, which only `marchland certs` needs.
    pub key_pem: String,
}

/// Makes a new authority for development clusters.
pub fn make_authority(cluster: &str) -> Result<Authority, SecurityError> {
    let key = KeyPair::generate().map_err(made)?;
    let certificate = authority_params(cluster)?.self_signed(&key).map_err(made)?;
    Ok(Authority { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn made(error: rcgen::Error) -> SecurityError {
    SecurityError::Certificate(error.to_string())
}

fn authority_params(cluster: &str) -> Result<CertificateParams, SecurityError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(made)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("Marchland development authority of {cluster}"));
    Ok(params)
}

/// Signs a certificate for `identity`; returns certificate and key in PEM. The cluster is the identity's.
pub fn make_node_certificate(authority: &Authority, identity: &PeerIdentity) -> Result<(String, String), SecurityError> {
    let issuer_key = KeyPair::from_pem(&authority.key_pem).map_err(made)?;
    let issuer = Issuer::new(authority_params(&identity.cluster)?, issuer_key);
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(made)?;
    let uri = identity.to_string().try_into().map_err(made)?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.distinguished_name.push(DnType::CommonName, format!("node {}", identity.node));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().map_err(made)?;
    let certificate = params.signed_by(&key, &issuer).map_err(made)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// An acceptor for players' TLS (`wss`), with a certificate that browsers trust.
pub fn client_tls_acceptor(certificate_pem: &[u8], key_pem: &[u8]) -> Result<TlsAcceptor, SecurityError> {
    let bad = |e: &dyn std::fmt::Display| SecurityError::Certificate(e.to_string());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| bad(&e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&e))?;
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use marchland_types::{NodeId, WorldId};

    fn identity(cluster: &str, node: u32) -> PeerIdentity {
        PeerIdentity {
            cluster: cluster.into(),
            node: NodeId(node),
            roles: [Role::Shard].into(),
            worlds: Some([WorldId(1)].into()),
        }
    }

    fn security(authority: &Authority, identity: &PeerIdentity) -> ClusterSecurity {
        let (certificate, key) = make_node_certificate(authority, identity).unwrap();
        ClusterSecurity::from_pem(authority.certificate_pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    async fn shake(
        a: &ClusterSecurity,
        b: &ClusterSecurity,
    ) -> (Result<PeerIdentity, SecurityError>, Result<PeerIdentity, SecurityError>) {
        let (left, right) = tokio::io::duplex(4096);
        let accept = async {
            let mut stream = b.accept(right).await?;
            // A client learns of a refused certificate with its first read: give it one.
            stream.write_all(b"x").await.map_err(|e| SecurityError::Handshake(e.to_string()))?;
            Ok(stream.peer().clone())
        };
        let connect = async {
            let mut stream = a.connect(left).await?;
            stream.read_u8().await.map_err(|e| SecurityError::Handshake(e.to_string()))?;
            Ok(stream.peer().clone())
        };
        tokio::join!(connect, accept)
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is() {
        let authority = make_authority("dev").unwrap();
        let (one, two) = (identity("dev", 1), identity("dev", 2));
        for (a, b) in [
            (security(&authority, &one), security(&authority, &two)),
            (ClusterSecurity::simulated(one.clone()), ClusterSecurity::simulated(two.clone())),
        ] {
            let (seen_by_a, seen_by_b) = shake(&a, &b).await;
            assert_eq!((seen_by_a.unwrap(), seen_by_b.unwrap()), (two.clone(), one.clone()));
        }
    }

    #[tokio::test]
    async fn another_authority_another_cluster_and_no_certificate_are_refused() {
        let authority = make_authority("dev").unwrap();
        let ours = security(&authority, &identity("dev", 1));
        let stranger = security(&make_authority("dev").unwrap(), &identity("dev", 2));
        let (a, b) = shake(&stranger, &ours).await;
        assert!(a.is_err() && b.is_err());
        let (a, b) =
            shake(&ClusterSecurity::simulated(identity("other", 1)), &ClusterSecurity::simulated(identity("dev", 2))).await;
        assert!(a.is_err());
        assert!(matches!(b, Err(SecurityError::OtherCluster { .. })), "{b:?}");
        // Plain bytes instead of a handshake.
        let (mut left, right) = tokio::io::duplex(4096);
        left.write_all(&[0x42; 64]).await.unwrap();
        drop(left);
        assert!(matches!(ours.accept(right).await, Err(SecurityError::Handshake(_))));
    }
}
