//! Who a peer is, as its certificate says.
//!
//! A certificate binds cluster, node, roles and worlds in one URI among its subject's alternative names:
//! `marchland://CLUSTER/node/7?roles=shard,edge&worlds=1,2`. `worlds=*` stands for every world (operators' tools).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use marchland_types::{NodeId, WorldId};

/// What a process may do in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Hosts replicas: may speak raft, deliver messages between groups, answer edges.
    Shard,
    /// Terminates clients: may attach to regions and ask the directory.
    Edge,
    /// An operator's tool: may ask the admin service.
    Admin,
}

impl Role {
    /// As it stands in certificates and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Shard => "shard",
            Role::Edge => "edge",
            Role::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        match text {
            "shard" => Ok(Role::Shard),
            "edge" => Ok(Role::Edge),
            "admin" => Ok(Role::Admin),
            _ => Err(BadIdentity(format!("unknown role {text:?}"))),
        }
    }
}

/// A text that is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity: {0}")]
pub struct BadIdentity(pub String);

/// The holder of a certificate. Displays as the URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to: letters, digits and dashes.
    pub cluster: String,
    /// Its node, 0 for a tool that is none.
    pub node: NodeId,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// For which worlds; `None` is every one.
    pub worlds: Option<BTreeSet<WorldId>>,
}

impl PeerIdentity {
    /// Whether it has the role, for this world.
    #[must_use]
    pub fn may(&self, role: Role, world: WorldId) -> bool {
        self.roles.contains(&role) && self.worlds.as_ref().is_none_or(|worlds| worlds.contains(&world))
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<_> = self.roles.iter().map(|r| r.name()).collect();
        let worlds = match &self.worlds {
            None => "*".to_owned(),
            Some(worlds) => worlds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        write!(f, "marchland://{}/node/{}?roles={}&worlds={}", self.cluster, self.node, roles.join(","), worlds)
    }
}

impl FromStr for PeerIdentity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let bad = || BadIdentity(format!("{text:?}"));
        let rest = text.strip_prefix("marchland://").ok_or_else(bad)?;
        let (cluster, rest) = rest.split_once("/node/").ok_or_else(bad)?;
        let (node, query) = rest.split_once("?roles=").ok_or_else(bad)?;
        let (roles, worlds) = query.split_once("&worlds=").ok_or_else(bad)?;
        if cluster.is_empty() || !cluster.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(bad());
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            node: NodeId(node.parse().map_err(|_| bad())?),
            roles: roles.split(',').filter(|r| !r.is_empty()).map(Role::from_str).collect::<Result<_, _>>()?,
            worlds: match worlds {
                "*" => None,
                list => Some(
                    list.split(',')
                        .filter(|w| !w.is_empty())
                        .map(|w| w.parse().map(WorldId).map_err(|_| bad()))
                        .collect::<Result<_, _>>()?,
                ),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_limits_roles_to_worlds() {
        let text = "marchland://dev-1/node/7?roles=shard,edge&worlds=1,2";
        let peer: PeerIdentity = text.parse().unwrap();
        assert_eq!(peer.to_string(), text);
        assert!(peer.may(Role::Edge, WorldId(2)));
        assert!(!peer.may(Role::Edge, WorldId(3)));
        assert!(!peer.may(Role::Admin, WorldId(2)));
        let tool: PeerIdentity = "marchland://dev-1/node/0?roles=admin&worlds=*".parse().unwrap();
        assert!(tool.may(Role::Admin, WorldId(99)));
    }

    #[test]
    fn refuses_what_is_no_identity() {
        for text in [
            "",
            "marchland://",
            "marchland:///node/1?roles=&worlds=",
            "marchland://a/node/x?roles=&worlds=*",
            "marchland://a/node/1?roles=king&worlds=*",
            "https://a/node/1?roles=shard&worlds=*",
            "marchland://a b/node/1?roles=&worlds=1",
        ] {
            assert!(text.parse::<PeerIdentity>().is_err(), "{text}");
        }
    }
}
